{{/* The name of the operator's objects. Not the release's name alone: each namespace with resources has a Deployment `lakehouse`. */}}
{{- define "lakehouse.name" -}}
{{ .Release.Name | trunc 54 | trimSuffix "-" }}-operator
{{- end }}

{{/* A name that is unique in the cluster. */}}
{{- define "lakehouse.clusterName" -}}
{{ .Release.Namespace }}:{{ include "lakehouse.name" . }}
{{- end }}

{{- define "lakehouse.selector" -}}
app.kubernetes.io/name: lakehouse-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lakehouse.labels" -}}
{{ include "lakehouse.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "lakehouse.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The operator's own image: that of the pods, unless it is said to be another one. */}}
{{- define "lakehouse.operatorImage" -}}
{{- with .Values.operator.image -}}
{{ .repository | default $.Values.image.repository }}:{{ .tag | default $.Values.image.tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The operator's settings file: these values, in the same words. */}}
{{- define "lakehouse.settings" -}}
image: {{ include "lakehouse.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
imagePullSecrets: {{ toJson .Values.image.pullSecrets }}
{{- range list "store" "tokenSecret" "gateway" "query" "ingest" "vectors" "build" "embed" "chat" "pods" "logLevel" }}
{{ toYaml (dict . (get $.Values .)) }}
{{- end }}
{{- end }}

{{/* What every container of this chart may do: nothing. */}}
{{- define "lakehouse.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "lakehouse.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What the operator does in a namespace with resources; no verb more. */}}
{{- define "lakehouse.rules" -}}
# Finalizers are patched, specs never edited.
- apiGroups: [lakehouse.dev]
  resources: [datasets, vectorindexes, chatproviders]
  verbs: [get, list, watch, patch]
- apiGroups: [lakehouse.dev]
  resources: [datasets/status, vectorindexes/status, chatproviders/status]
  verbs: [patch]
# Some clusters ask this of whoever makes an object that is owned by a resource.
- apiGroups: [lakehouse.dev]
  resources: [datasets/finalizers, vectorindexes/finalizers, chatproviders/finalizers]
  verbs: [update]
# Children, by server-side apply.
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Why a pod does not start, and its last words. An annotation tells a pod's node that the list of ChatProviders or a key has changed,
# so that the kubelet renews the pod's files at once; who makes Deployments gains no power by this verb.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# What the kubelet and the Job controller say in Events alone.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# Whether a namespace is being deleted, so that no purge can run in it any more.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
# Whether those that a resource names exist; the token of a namespace is made once.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* What an uninstall leaves, and how to get rid of it. */}}
{{- define "lakehouse.farewell" -}}
`helm uninstall` takes the operator and nothing else: the resources, their pods and all data stay and go on serving.
To get rid of these, too, while the operator still runs:

  1. the data of a resource that has `deletionPolicy: Delete` goes with it; that of others stays in {{ .Values.store.url }}
  2. kubectl delete datasets,vectorindexes,chatproviders --all {{ with .Values.watchNamespaces }}--namespace NAME, for each of {{ join ", " . }}{{ else }}--all-namespaces{{ end }}
  3. helm uninstall {{ .Release.Name }} --namespace {{ .Release.Namespace }}
  4. delete what is left in the bucket, and the Secrets `{{ .Values.store.secret }}` and `{{ .Values.tokenSecret }}` of each namespace
  5. kubectl delete crd datasets.lakehouse.dev vectorindexes.lakehouse.dev chatproviders.lakehouse.dev

A Dataset or VectorIndex with `deletionPolicy: Delete` waits for an operator when it is deleted without one: install it again, or
give up its data's removal with `kubectl patch dataset NAME --type merge -p '{"metadata": {"finalizers": null}}'`.
{{- end }}
