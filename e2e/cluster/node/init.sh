#!/usr/bin/env bash
# Process 1 of a cluster's namespaces: starts every component, says when all is ready, and ends the cluster when one of
# them ends. `cluster.sh up` calls it. Everything below /run is private to the cluster and gone with it.
#   init.sh STATE KUBE CGROUP     the state folder, the `kube` binary, the cgroup for the pods
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
state=$1 kube=$2 cgroup=$3
address=10.250.0.1
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY

until_ok() {
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  echo "gave up waiting for: $*" >&2
  exit 1
}

# Equal, short paths in every cluster, whatever its name: sockets have room for 107 characters.
resolv_conf=$(readlink -m /etc/resolv.conf)
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/cluster /run/cni/conf /run/containerd /run/lock
mount --bind "$state" /run/cluster
mkdir -p /run/cluster/{log,users,volume-plugins,pod-logs}
for plugins in /usr/lib/cni /usr/libexec/cni /opt/cni/bin; do
  if [ -x $plugins/ptp ]; then ln -sfn $plugins /run/cni/bin; fi
done
cp "$here/pods.conflist" /run/cni/conf/
for disk in 0 1 2 3; do install -d -m 777 "/run/cluster/disks/$disk"; done
mkdir -p "$(dirname "$resolv_conf")"
[ -e "$resolv_conf" ] || : >"$resolv_conf"
mount --bind "$here/resolv.conf" "$resolv_conf"

# A network with no way out: the default route ends in the other half of a veth pair. ClusterIPs need some route, or no
# packet would get as far as the rules that rewrite it.
ip link set lo up
ip link add node0 type veth peer name nowhere0
ip address add $address/24 dev node0
ip link set node0 up
ip link set nowhere0 up
ip route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward

# Where this machine is a container itself, one overlay cannot lie upon another; then layers are copied.
snapshotter=overlayfs
mkdir -p /run/cluster/overlay/{lower,upper,work,both}
if mount -t overlay -o lowerdir=/run/cluster/overlay/lower,upperdir=/run/cluster/overlay/upper,workdir=/run/cluster/overlay/work \
  overlay /run/cluster/overlay/both 2>/dev/null; then
  umount /run/cluster/overlay/both
else
  snapshotter=native
fi
echo $snapshotter >/run/cluster/snapshotter
sed "s/SNAPSHOTTER/$snapshotter/" "$here/containerd.toml" >/run/cluster/containerd.toml

start() { # NAME COMMAND…
  local name=$1
  shift
  "$@" >"/run/cluster/log/$name" 2>&1 </dev/null &
  names[$!]=$name
}
declare -A names
certificates=/run/cluster/certificates

while IFS=, read -r token _ user _; do # TOKEN,USER,SHORT NAME,GROUPS
  cat >"/run/cluster/users/$user" <<USER
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://$address:6443", certificate-authority: "$state/certificates/apiserver.crt"}}]
users: [{name: $user, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: $user}}]
current-context: test
USER
done <"$here/users.csv"

start containerd containerd --config /run/cluster/containerd.toml --log-level warn
start etcd "$kube" etcd --data-dir /run/cluster/etcd --unsafe-no-fsync --log-level error \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380
start kube-apiserver "$kube" kube-apiserver --etcd-servers http://127.0.0.1:2379 --cert-dir $certificates \
  --advertise-address $address --service-cluster-ip-range 10.96.0.0/16 \
  --service-account-issuer https://kubernetes.default.svc --service-account-key-file $certificates/apiserver.key \
  --service-account-signing-key-file $certificates/apiserver.key --token-auth-file "$here/users.csv" \
  --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
  --kubelet-preferred-address-types InternalIP
export KUBECONFIG=$state/users/admin
until_ok "$kube" kubectl get --raw /readyz

user() { echo --kubeconfig "/run/cluster/users/$1"; }
# The certificate that the API server made for itself comes with its authority: pods get both as theirs. Its key signs
# their tokens.
start kube-controller-manager "$kube" kube-controller-manager $(user controllers) --leader-elect=false \
  --authentication-kubeconfig /run/cluster/users/controllers --authorization-kubeconfig /run/cluster/users/controllers \
  --use-service-account-credentials --service-account-private-key-file $certificates/apiserver.key \
  --root-ca-file $certificates/apiserver.crt --cert-dir $certificates --node-monitor-grace-period 5m
start kube-scheduler "$kube" kube-scheduler $(user scheduler) --leader-elect=false --cert-dir $certificates \
  --authentication-kubeconfig /run/cluster/users/scheduler --authorization-kubeconfig /run/cluster/users/scheduler
start kube-proxy "$kube" kube-proxy $(user proxy) --hostname-override node --proxy-mode iptables \
  --cluster-cidr 10.244.0.0/16 --conntrack-max-per-core 0
start coredns "$kube" coredns -conf "$here/Corefile"
until_ok ctr version
start kubelet "$kube" kubelet --config "$here/kubelet.yaml" $(user kubelet) --root-dir /run/cluster/kubelet \
  --cert-dir $certificates --hostname-override node --node-ip $address --cgroup-root "$cgroup"

"$kube" kubectl apply --filename "$here/disks.yaml" >/dev/null
until_ok "$kube" kubectl wait --for=condition=Ready node/node --timeout=10s
until_ok "$kube" kubectl --namespace default get serviceaccount default
touch /run/cluster/ready
wait -n -p ended || true
echo "${names[$ended]} ended, and the cluster with it; its last words:" >&2
tail -n 5 "/run/cluster/log/${names[$ended]}" >&2
