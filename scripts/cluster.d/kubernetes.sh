# shellcheck shell=bash
# Kubernetes and its etcd, built once per machine and version and kept in the cache.

readonly default_version=v1.34.4
readonly debian_version=v1.20.2
readonly kubernetes_programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl)

full_version() {
    case $1 in
    1.34) echo "$default_version" ;;
    1.20) echo "$debian_version" ;;
    *) fail "there is no Kubernetes $1 here, only 1.34 and 1.20" ;;
    esac
}

# build_kubernetes [VERSION]
#
# Makes sure that the programs are in the cache and prints the version. Without
# VERSION it is the default one, or Debian's where the default one cannot be built.
build_kubernetes() {
    local version=${1:-$default_version}
    if [[ ! -d $cache/$version ]]; then
        if [[ $version == "$debian_version" ]]; then
            build_in_cache "$version" build_from_debian
        elif go_is_recent && download_modules; then
            build_in_cache "$version" build_from_modules
        elif [[ -n ${1:-} ]]; then
            fail "Kubernetes $version needs Go 1.24 or later and access to its modules"
        else
            say "no Go 1.24 or no access to modules: taking Debian's Kubernetes $debian_version instead"
            version=$debian_version
            [[ -d $cache/$version ]] || build_in_cache "$version" build_from_debian
        fi
    fi
    echo "$version"
}

# build_in_cache VERSION FUNCTION
#
# FUNCTION gets a work directory, and leaves the programs in its bin directory. They
# come into the cache by one rename, so that the cache never holds half a build.
build_in_cache() {
    local version=$1 build=$2 work program status=0
    say "building Kubernetes $version, about 10 minutes on 2 cores, once per machine"
    # What an interrupted build has left is of no use.
    rm -rf "$cache"/build.*
    work=$(mktemp -d "$cache/build.XXXXXX")
    mkdir "$work/bin"
    # A command that is tested by `if` would go on after its own errors; one in the
    # background does not.
    "$build" "$work" >"$work/log" 2>&1 9>&- &
    wait $! || status=$?
    if ((status)); then
        tail --lines=30 "$work/log" >&2
        fail "building Kubernetes $version failed; all that it said is in $work/log"
    fi
    for program in etcd "${kubernetes_programs[@]}"; do
        [[ -x $work/bin/$program ]] || fail "building Kubernetes $version made no $program; see $work/log"
    done
    mv "$work/bin" "$cache/$version"
    rm -rf "$work"
}

# The modules ask for Go 1.24. What is installed is used as it is: a toolchain that
# downloads another one would hide that.
go_is_recent() {
    local version
    version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
    printf '%s\n' go1.24 "$version" | sort --check=quiet --version-sort
}

download_modules() {
    say "downloading the modules of Kubernetes"
    (cd "$parts/kubernetes" && GOTOOLCHAIN=local go mod download) >&2 9>&-
}

build_from_modules() {
    local work=$1 stamp=k8s.io/component-base/version
    cd "$parts/kubernetes"
    GOTOOLCHAIN=local CGO_ENABLED=0 go build -o "$work/bin/" -trimpath -ldflags \
        "-s -w -X $stamp.gitVersion=v1.34.4 -X $stamp.gitMajor=1 -X $stamp.gitMinor=34" tool
    # Go names it by the last part of its module.
    mv "$work/bin/server" "$work/bin/etcd"
}

# Debian's source package carries all that it depends on. Its sources are asked for
# through lists of our own, so that the machine's own list of sources stays as it is.
build_from_debian() {
    local work=$1
    install_packages golang-1.19-go make rsync dpkg-dev etcd-server
    fetch_debian_source "$work"
    cd "$work/source"
    cat >version-file <<END
KUBE_GIT_VERSION='$debian_version'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='20'
KUBE_GIT_COMMIT='debian'
KUBE_GIT_TREE_STATE='clean'
END
    env --unset=GOFLAGS PATH="/usr/lib/go-1.19/bin:$PATH" GO111MODULE=off GOTOOLCHAIN=local \
        KUBE_GIT_VERSION_FILE="$PWD/version-file" KUBE_BUILD_PLATFORMS="linux/$(dpkg --print-architecture)" \
        make all WHAT="${kubernetes_programs[*]/#/cmd/}"
    cp "${kubernetes_programs[@]/#/_output/local/go/bin/}" /usr/bin/etcd "$work/bin/"
}

fetch_debian_source() {
    local work=$1 apt
    mkdir -p "$work/apt/lists/partial"
    # The places that the machine takes its Debian packages from have the sources too.
    apt-get indextargets 'Created-By: Packages' 'Origin: Debian' --format \
        'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        | sort --unique >"$work/apt/sources.list"
    apt=(-o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/apt/lists" -o APT::Sandbox::User=root)
    cd "$work"
    apt-get "${apt[@]}" update
    apt-get "${apt[@]}" source --only-source --download-only kubernetes
    # Unpacked by hand, because the name of the directory is that of the version in
    # Debian's own counting.
    dpkg-source --extract ./kubernetes_*1.20.2*.dsc source
}
