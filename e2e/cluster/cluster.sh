#!/usr/bin/env bash
# A real Kubernetes with real pods on one Linux machine, in network, mount and process namespaces of its own: no request
# leaves the machine, and the end of one process is the end of all of it. Needs root, and nothing but Go and Debian's packages.
#
#   cluster.sh install            install what is missing of them (Debian and Ubuntu)
#   cluster.sh build              compile Kubernetes (5 minutes, once) and print the folder of `kube`, `kubectl` and `helm`
#   cluster.sh up                 start the cluster and wait until it is ready; nothing to do when it runs
#   cluster.sh load IMAGE.tar…    give its node images (docker-archive or OCI archive)
#   cluster.sh run COMMAND…       a command inside: KUBECONFIG, kubectl and helm are there, names of Services resolve
#   cluster.sh kubectl …          the same for these two
#   cluster.sh helm …
#   cluster.sh logs [COMPONENT]   what a component has to say (etcd, kubelet, …)
#   cluster.sh down               end it and remove all that it kept
#
# LAKEHOUSE_CLUSTER names the cluster (default: lakehouse); clusters of different names run side by side.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lakehouse/cluster
name=${LAKEHOUSE_CLUSTER:-lakehouse}
state=$cache/state/$name
cgroup=/lakehouse-cluster-$name
kubernetes=v1.34.4
minor=${kubernetes#v1.} minor=${minor%.*}
# What the programs say of themselves; Helm asks a chart whether it can do with this Kubernetes.
link_flags="-s -w"
for told in gitVersion=$kubernetes gitMajor=1 gitMinor=$minor gitTreeState=clean; do
  link_flags+=" -X k8s.io/component-base/version.$told"
done
for told in k8sVersionMajor=1 k8sVersionMinor=$minor; do link_flags+=" -X helm.sh/helm/v4/pkg/chart/common.$told"; done

fail() { echo "$*" >&2; exit 1; }

# What a machine needs beside Go: a file or command, and the Debian package that brings it.
needs() {
  cat <<'LIST'
containerd containerd
ctr containerd
ip iproute2
iptables iptables
mount mount
nsenter util-linux
ptp containernetworking-plugins
runc runc
LIST
}

missing() {
  local what package
  while read -r what package; do
    PATH=$PATH:/usr/sbin:/sbin:/usr/lib/cni:/usr/libexec/cni:/opt/cni/bin command -v "$what" >/dev/null || echo "$package"
  done < <(needs) | sort -u
}

doctor() {
  local packages
  command -v go >/dev/null || fail "go is missing: Go 1.25 or newer builds the test cluster (https://go.dev/dl)."
  [ "$(uname -s)" = Linux ] || fail "the test cluster needs Linux; set KUBECONFIG to a cluster of your own instead."
  [ "$(id -u)" = 0 ] || fail "the test cluster needs root; run as root, or set KUBECONFIG to a cluster of your own."
  packages=$(missing | tr '\n' ' ')
  [ -z "$packages" ] || fail "the test cluster needs more: as root, \`$0 install\`, or install ${packages% } (Debian's names)."
}

install() {
  local packages
  mapfile -t packages < <(missing)
  [ ${#packages[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "install these packages (Debian's names): ${packages[*]}"
  [ "$(id -u)" = 0 ] || fail "only root can: apt-get install --no-install-recommends ${packages[*]}"
  echo "Installing ${packages[*]}" >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}"; } >&2
}

# The folder of this build: its name is a digest of all that goes in, so that a change is a folder beside the old one.
built() {
  local inputs
  inputs=$(cd "$here" && cat go.mod go.sum main.go pause/*.go files/*.go && echo "$link_flags $(uname -m)")
  echo "$cache/build-$(echo "$inputs" | sha256sum | cut -c -12)"
}

build() {
  local home building
  home=$(built)
  if [ ! -e "$home" ]; then
    command -v go >/dev/null || fail "go is missing: Go 1.25 or newer builds the test cluster (https://go.dev/dl)."
    mkdir -p "$cache"
    # Builds that run side by side build once.
    exec 8>"$cache/build.lock"
    flock 8
    if [ ! -e "$home" ]; then
      echo "Building Kubernetes $kubernetes for the tests; this takes 5 to 15 minutes, once." >&2
      building=$(mktemp -d "$cache/building.XXXXXX")
      trap "rm -rf '$building'" EXIT
      (
        cd "$here"
        export CGO_ENABLED=0
        go build -trimpath -buildvcs=false -ldflags "$link_flags" -o "$building/kube" .
        go build -trimpath -buildvcs=false -o "$building/" -ldflags '-s -w' ./pause ./files
      ) >&2
      ln -s kube "$building/kubectl"
      ln -s kube "$building/helm"
      chmod 755 "$building"
      mv -T "$building" "$home"
      # Builds of sources long gone.
      find "$cache" -maxdepth 1 -name 'build-*' ! -path "$home" -mtime +7 -exec rm -rf {} +
    fi
    exec 8>&-
  fi
  touch "$home"
  echo "$home"
}

# Makes `localhost/pause:1` and `localhost/files:1`, the images of the tests' own programs.
images() {
  local home=$1 program
  for program in pause files; do
    [ ! -e "$home/$program.tar" ] || continue
    mkdir -p "$home/image-$program"
    cp "$home/$program" "$home/image-$program/"
    "$here/../../image/archive.sh" "localhost/$program:1" "$home/$program.tar" "$home/image-$program" \
      "{\"User\": \"65532:65532\", \"Entrypoint\": [\"/$program\"]}"
  done
}

# The process that is process 1 inside, or nothing when the cluster is down.
init() {
  local keeper
  keeper=$(cat "$state/keeper" 2>/dev/null) || return 0
  # After a restart of the machine the number may be another process's.
  grep -qsF "$state" "/proc/$keeper/cmdline" || return 0
  cut -d ' ' -f 1 "/proc/$keeper/task/$keeper/children"
}

inside() {
  local process
  process=$(init)
  [ -n "$process" ] || fail "the cluster \`$name\` is not up: $0 up"
  # The working directory is found again by its name, since the mounts are the cluster's own.
  exec nsenter --target "$process" --net --pid --mount \
    env -u http_proxy -u https_proxy -u all_proxy -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY \
    KUBECONFIG="$state/users/admin" PATH="$(built):$PATH" LAKEHOUSE_CLUSTER="$name" \
    sh -c 'cd "$1" && shift && exec "$@"' sh "$PWD" "$@"
}

load() {
  local image
  for image in "$@"; do
    (inside ctr --namespace k8s.io images import --snapshotter "$(cat "$state/snapshotter")" "$(realpath "$image")") >/dev/null || fail "$image could not be loaded"
  done
}

# The pods' cgroups lie below one of the cluster's own, or two kubelets would each end the other's pods as strays.
make_cgroup() {
  local hierarchy what root=/sys/fs/cgroup
  if [ -e $root/cgroup.controllers ]; then
    # Version 2 hands a controller down when it is told to, and not past processes, which a container's root has.
    what=$(sed 's/[^ ]*/+&/g' $root/cgroup.controllers)
    if ! echo "$what" >$root/cgroup.subtree_control; then
      mkdir -p $root/init
      xargs -rn1 <$root/cgroup.procs >$root/init/cgroup.procs || true
      echo "$what" >$root/cgroup.subtree_control
    fi 2>/dev/null
    mkdir -p "$root$cgroup"
    echo "$what" >"$root$cgroup/cgroup.subtree_control"
    return
  fi
  for hierarchy in $root/*; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    mkdir -p "$hierarchy$cgroup"
    [ -e "$hierarchy/cpuset.mems" ] || continue
    for what in cpuset.cpus cpuset.mems; do cat "$hierarchy/$what" >"$hierarchy$cgroup/$what"; done
  done
}

up() {
  local home process
  doctor
  home=$(build)
  images "$home"
  mkdir -p "$cache/state"
  exec 9>"$cache/state/$name.lock"
  flock 9
  process=$(init)
  if [ -n "$process" ] && [ -e "$state/ready" ]; then return 0; fi
  remove
  mkdir -p "$state"
  make_cgroup
  # Nothing of it holds on to this script's output or locks: who waits for the end of those need not wait for the cluster.
  setsid unshare --net --mount --pid --fork --mount-proc --kill-child \
    "$here/node/init.sh" "$state" "$home/kube" "$cgroup" >"$state/init.log" 2>&1 </dev/null 9>&- &
  echo $! >"$state/keeper"
  until [ -e "$state/ready" ]; do
    if ! kill -0 "$(cat "$state/keeper")" 2>/dev/null; then
      cat "$state/init.log" >&2
      fail "the cluster \`$name\` did not start; more is in $state/log"
    fi
    sleep 0.1
  done
  load "$home/pause.tar" "$home/files.tar"
}

# Ends all processes and removes all files. What is left of an earlier run is no reason to fail.
remove() {
  local keeper hierarchy tries process
  process=$(init)
  if keeper=$(cat "$state/keeper" 2>/dev/null) && [ -n "$process" ]; then
    kill -9 "$keeper" 2>/dev/null || true
    for ((tries = 0; tries < 100; tries++)); do
      [ -e "/proc/$process" ] || break
      sleep 0.1
    done
  fi
  for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -d "$hierarchy$cgroup" ] || continue
    find "$hierarchy$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  rm -rf "$state"
}

command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
  install) install ;;
  doctor) doctor ;;
  build) build ;;
  up) up ;;
  load) load "$@" ;;
  run) inside "$@" ;;
  kubectl | helm) inside "$command" "$@" ;;
  logs) if [ $# -gt 0 ]; then cat "$state/log/$1"; else tail -n 20 "$state/init.log" "$state"/log/*; fi ;;
  down) exec 9>"$cache/state/$name.lock"; flock 9; remove ;;
  *) sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p}' "$0"; [ "$command" = help ] || exit 2 ;;
esac
