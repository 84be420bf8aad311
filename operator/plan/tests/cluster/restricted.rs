//! The Pod Security Standard "restricted", as far as it speaks of what a pod template can hold, and what this project adds.
//!
//! Source: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>, Kubernetes 1.34.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// Everything by which a template breaks the rules.
pub(crate) fn violations(template: &PodTemplateSpec) -> Vec<String> {
    let template = serde_json::to_value(template).unwrap();
    let spec = &template["spec"];
    let mut broken = Vec::new();
    let mut must = |holds: bool, rule: &str| {
        if !holds {
            broken.push(rule.to_owned());
        }
    };
    for host in ["hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostAliases"] {
        must(spec[host].is_null(), "shares nothing with its host");
    }
    let allowed = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let kinds: Vec<&String> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
        must(kinds.iter().all(|kind| allowed.contains(&kind.as_str())), "volumes are of harmless kinds");
        let bounded = volume["emptyDir"].is_null() || volume["emptyDir"]["sizeLimit"].is_string();
        must(bounded, "what it may write has a limit");
    }
    let pod = &spec["securityContext"];
    for field in ["seLinuxOptions", "sysctls", "windowsOptions", "appArmorProfile"] {
        must(pod[field].is_null(), "asks for no options of the kernel");
    }
    must(pod["runAsNonRoot"] == true, "runs as somebody else than root");
    must(pod["runAsUser"].as_i64().is_some_and(|user| user > 0), "runs as somebody else than root");
    must(pod["runAsGroup"].as_i64().is_some_and(|group| group > 0), "runs in another group than root's");
    must(pod["seccompProfile"]["type"] == "RuntimeDefault", "has the runtime's seccomp profile");
    must(spec["automountServiceAccountToken"] == false, "holds no token of the API server");
    must(spec["enableServiceLinks"] == false, "learns nothing of its neighbours by variables");
    must(spec["initContainers"].is_null() && spec["ephemeralContainers"].is_null(), "has one container");
    let containers = spec["containers"].as_array().unwrap();
    must(containers.len() == 1, "has one container");
    for container in containers {
        let context = &container["securityContext"];
        must(context["privileged"].is_null(), "has no privilege");
        must(context["procMount"].is_null(), "sees the usual /proc");
        must(context["allowPrivilegeEscalation"] == false, "can gain no privilege");
        must(context["readOnlyRootFilesystem"] == true, "cannot change its image");
        must(context["capabilities"]["drop"] == serde_json::json!(["ALL"]), "drops all capabilities");
        must(context["capabilities"]["add"].is_null(), "adds no capability");
        for overridden in ["runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"] {
            must(context[overridden].is_null(), "keeps to what its pod says");
        }
        for port in container["ports"].as_array().into_iter().flatten() {
            must(port["hostPort"].is_null(), "takes no port of its host");
        }
        for kind in ["requests", "limits"] {
            for resource in ["cpu", "memory"] {
                let amount = &container["resources"][kind][resource];
                must(amount.is_string(), &format!("has {kind} of {resource}"));
            }
        }
        for handler in ["livenessProbe", "readinessProbe", "startupProbe"] {
            must(container[handler]["httpGet"]["host"].is_null(), "is probed at its own address");
        }
        must(!names_a_secret(container), "holds a secret's value in its template");
    }
    broken
}

/// Values that only a Secret may hold.
fn names_a_secret(container: &Value) -> bool {
    container["env"].as_array().into_iter().flatten().any(|variable| {
        let name = variable["name"].as_str().unwrap_or_default();
        ["SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY"].iter().any(|word| name.contains(word))
    })
}

#[test]
fn the_rules_bite() {
    let template = serde_json::json!({"spec": {
        "hostNetwork": true,
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}],
        "containers": [{"name": "c", "securityContext": {"privileged": true}}],
    }});
    let broken = violations(&serde_json::from_value(template).unwrap());
    for rule in [
        "shares nothing",
        "harmless",
        "has a limit",
        "than root",
        "seccomp",
        "no privilege",
        "limits of memory",
    ] {
        assert!(broken.iter().any(|sentence| sentence.contains(rule)), "{rule}: {broken:#?}");
    }
}
