# shellcheck shell=bash
# The programs that the cluster takes from the distribution.

# Prints the Debian packages of what is missing. It looks for the programs and not
# for the packages, so that those of another origin (Docker's containerd, for one)
# are used as they are and not replaced.
missing_packages() {
    local wanted program package
    for wanted in \
        containerd=containerd ctr=containerd runc=runc ip=iproute2 \
        iptables=iptables jq=jq openssl=openssl busybox=busybox-static git=git pgrep=procps; do
        program=${wanted%%=*}
        package=${wanted#*=}
        command -v "$program" >/dev/null || echo "$package"
    done
    [[ -x /usr/lib/cni/bridge ]] || echo containernetworking-plugins
    # The dynamic busybox cannot run alone in an image.
    if command -v busybox >/dev/null && ldd "$(command -v busybox)" >/dev/null 2>&1; then
        echo busybox-static
    fi
}

install_missing_packages() {
    local packages
    readarray -t packages < <(missing_packages | sort --unique)
    ((${#packages[@]})) || return 0
    install_packages "${packages[@]}"
}

install_packages() {
    command -v apt-get >/dev/null || fail "missing, and there is no apt to install them: $*"
    say "installing $*"
    (
        export DEBIAN_FRONTEND=noninteractive
        forbid_services
        trap allow_services EXIT
        apt-get update --quiet=2
        apt-get install --quiet=2 --yes --no-install-recommends "$@"
    ) >&2 9>&-
}

# Some of the packages bring a service, which Debian starts when it installs them,
# unless this policy forbids it.
readonly policy=/usr/sbin/policy-rc.d

forbid_services() {
    [[ ! -e $policy ]] || mv "$policy" "$policy.before-executor-cluster"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

allow_services() {
    rm -f "$policy"
    [[ ! -e $policy.before-executor-cluster ]] || mv "$policy.before-executor-cluster" "$policy"
}
