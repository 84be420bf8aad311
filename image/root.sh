#!/usr/bin/env bash
# Fills a folder with all that the image of Lakehouse holds: the two binaries, libduckdb, the shared libraries that these
# ask for, and this system's certificates.
#   root.sh BINARIES FOLDER     BINARIES: the folder of `lakehouse` and `lakehouse-operator`; DUCKDB_LIB_DIR: of libduckdb.so
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binaries=$1 root=$2
duckdb=${DUCKDB_LIB_DIR:?set it to the folder of libduckdb.so}

mkdir -p "$root"/{etc/ssl/certs,lib,tmp,var/lib/lakehouse}
for binary in lakehouse lakehouse-operator; do strip -o "$root/$binary" "$binaries/$binary"; done
# The binaries look for it in `$ORIGIN/../lib`, which is /lib.
strip --strip-unneeded -o "$root/lib/libduckdb.so" "$duckdb/libduckdb.so"

"$here/libraries.sh" "$root" "$root/lakehouse" "$root/lakehouse-operator" "$root/lib/libduckdb.so"

for certificates in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
  if [ -e $certificates ]; then cp $certificates "$root/etc/ssl/certs/ca-certificates.crt"; fi
done
echo 'lakehouse:x:65532:65532:lakehouse:/var/lib/lakehouse:/sbin/nologin' >"$root/etc/passwd"
echo 'lakehouse:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
install -D -m 644 "$here/../LICENSE" "$root/licenses/lakehouse"
install -D -m 644 "$duckdb/LICENSE" "$root/licenses/duckdb"
chmod 755 "$root" "$root"/lakehouse*
chmod 1777 "$root/tmp"

# A library that is missing shows here and not in a cluster.
if [ "$(id -u)" = 0 ]; then
  for binary in lakehouse lakehouse-operator; do chroot "$root" "/$binary" --version >/dev/null; done
fi
