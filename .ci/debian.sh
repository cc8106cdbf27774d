# Sourced by engine and base-images: what a Debian machine can give when it reaches
# no image registry. Packages come from Debian's own mirror, the one that the
# machine's apt uses, and from a newer release than the machine's own where the
# machine's is too old.

debian_release=trixie
debian_keys=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() { say "$*" >&2; exit 1; }

# need_debian_root WHAT: a machine that has everything is never asked this.
need_debian_root() {
    command -v apt-get >/dev/null || die "$1 is missing, and this is not Debian: install it by hand"
    [ "$(id -u)" = 0 ] || die "$1 is missing, and installing it takes root"
}

# quietly COMMAND...: show what it printed only when it failed.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ "$status" = 0 ] || tail -n 40 "$log" >&2
    rm -f "$log"
    return "$status"
}

apt_install() {
    quietly apt-get update -q || die "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive quietly \
        apt-get install -y -q --no-install-recommends "$@" || die "apt-get install $* failed"
}

debian_mirror() {
    local codename uri
    codename=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016  # apt fills these in
    uri=$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Label: Debian' "Codename: $codename" | sed -n 1p)
    [ -n "$uri" ] || die "the machine's apt names no Debian mirror"
    printf '%s\n' "$uri"
}

# extract_packages FOLDER PACKAGE...: unpack these packages of $debian_release, and
# nothing that they depend on. Nothing is installed, so no service is started.
extract_packages() {
    local folder=$1 work mirror deb
    shift
    mirror=$(debian_mirror)
    work=$(mktemp -d)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$folder"
    printf 'deb [signed-by=%s] %s %s main\n' \
        "$debian_keys" "$mirror" "$debian_release" >"$work/sources.list"
    local apt=(
        apt-get -q
        -o "Dir::Etc::SourceList=$work/sources.list"
        -o Dir::Etc::SourceParts=-
        -o "Dir::State::Lists=$work/lists"
        -o "Dir::Cache=$work/cache"
        -o APT::Sandbox::User=root
        -o Acquire::Languages=none
    )
    quietly "${apt[@]}" update || die "no package lists of Debian $debian_release"
    (cd "$work/debs" && quietly "${apt[@]}" download "$@") || die "could not download $*"
    for deb in "$work"/debs/*.deb; do
        dpkg-deb --extract "$deb" "$folder"
    done
    rm -rf "$work"
}
