# shellcheck shell=bash
# The images of the cluster itself, made from programs of this machine:
#
#   localhost/pause:dev    holds a pod together; the kubelet asks for it
#   localhost/busybox:dev  a small shell
#   localhost/step:dev     a step as people write them: bash, coreutils, git
#   localhost/nonroot:dev  the same for a user who is not root and has a home
#   localhost/nobody:dev   the same for a user who has none

readonly pause_image=localhost/pause:dev
readonly images=(pause busybox step nonroot nobody)

# Prints the directory of the archives, in the cache. Its name tells what they were
# made from, so that a change of these scripts or of the machine's packages makes
# new ones.
make_images() {
    local key dir work image
    key=$(
        {
            cat "$parts/images.sh" "$repository/scripts/pack-image" "$repository/scripts/copy-programs"
            sha256sum "$(busybox_program)" "${step_programs[@]}"
        } | sha256sum | cut -c1-16
    )
    dir=$cache/images/$key
    if [[ ! -d $dir ]]; then
        say "making the images ${images[*]}"
        # Older ones are quickly made again, should another clone want them.
        rm -rf "$cache/images"
        mkdir -p "$cache/images"
        work=$(mktemp -d "$cache/images/make.XXXXXX")
        for image in "${images[@]}"; do
            mkdir -p "$work/root/$image"
            "make_$image" "$work/root/$image" "$work/out/$image.tar"
        done
        mv "$work/out" "$dir"
        rm -rf "$work"
    fi
    echo "$dir"
}

busybox_program() {
    command -v busybox
}

# make_pause ROOT ARCHIVE; and the others likewise.
make_pause() {
    install -D --mode=755 "$(busybox_program)" "$1/bin/busybox"
    # The first process of a pod has to end on SIGTERM and to reap what its containers
    # leave behind; a shell that waits does both.
    "$repository/scripts/pack-image" "$1" "$2" "$pause_image" --entrypoint \
        '["/bin/busybox", "sh", "-c", "trap \"exit 0\" TERM INT; /bin/busybox sleep infinity & wait"]'
}

make_busybox() {
    local applet
    install -D --mode=755 "$(busybox_program)" "$1/bin/busybox"
    for applet in $("$1/bin/busybox" --list); do
        [[ $applet == busybox ]] || ln -s busybox "$1/bin/$applet"
    done
    make_common_files "$1"
    "$repository/scripts/pack-image" "$1" "$2" localhost/busybox:dev
}

readonly step_programs=(
    /bin/bash /bin/dash /bin/sh /bin/grep /bin/sed /bin/tar /bin/gzip /usr/bin/find /usr/bin/xargs
    /usr/bin/git /usr/lib/git-core/git-remote-http /usr/lib/git-core/git-remote-https
)

make_step() {
    make_step_files "$1"
    "$repository/scripts/pack-image" "$1" "$2" localhost/step:dev
}

make_nonroot() {
    make_nonroot_files "$1"
    "$repository/scripts/pack-image" "$1" "$2" localhost/nonroot:dev --user 1000:1000
}

make_nobody() {
    make_nonroot_files "$1"
    "$repository/scripts/pack-image" "$1" "$2" localhost/nobody:dev --user 65534:65534
}

make_nonroot_files() {
    make_step_files "$1"
    echo 'nonroot:x:1000:1000:nonroot:/var/nonroot:/bin/sh' >>"$1/etc/passwd"
    echo 'nonroot:x:1000:' >>"$1/etc/group"
    install --directory --owner=1000 --group=1000 "$1/var/nonroot"
}

make_step_files() {
    local coreutils
    readarray -t coreutils < <(dpkg --listfiles coreutils | grep -E '^(/usr)?/bin/')
    "$repository/scripts/copy-programs" "$1" "${step_programs[@]}" "${coreutils[@]}"
    ln -s ../../bin/git "$1/usr/lib/git-core/git"
    mkdir -p "$1/usr/share/git-core/templates"
    make_common_files "$1"
}

make_common_files() {
    mkdir -p "$1"/{etc,root,proc,sys,dev}
    install --directory --mode=1777 "$1/tmp"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
}

# load_image ARCHIVE
#
# containerd's Kubernetes side learns of an image a moment after it is stored, and marks
# it then. A pod that came before that would try to pull it.
#
# Each image also gets a name with its digest, under which pods can ask for it as they
# can for one from a registry. That of an older load goes, and its layers with it.
load_image() {
    local name pinned older
    inside_cluster ctr --namespace k8s.io images import - <"$1" >/dev/null
    for name in $(tar --extract --to-stdout --file="$1" manifest.json | jq --raw-output '.[].RepoTags[]'); do
        pinned=${name%:*}@$(digest_of "$name")
        for older in $(names_by_digest "${name%:*}"); do
            [[ $older == "$pinned" ]] || inside_cluster ctr --namespace k8s.io images remove "$older" >/dev/null
        done
        inside_cluster ctr --namespace k8s.io images tag --force "$name" "$pinned" >/dev/null
        wait_for 30 "the image $name" is_managed "$name"
        wait_for 30 "the image $pinned" is_managed "$pinned"
        say "loaded $name"
    done
}

digest_of() {
    inside_cluster ctr --namespace k8s.io images list "name==$1" | awk 'NR == 2 { print $3 }'
}

# names_by_digest REPOSITORY
names_by_digest() {
    inside_cluster ctr --namespace k8s.io images list --quiet "name~=\"^$1@\""
}

is_managed() {
    inside_cluster ctr --namespace k8s.io images list --quiet \
        "name==$1,labels.\"io.cri-containerd.image\"==managed" | grep --quiet --fixed-strings --line-regexp "$1"
}

# Runs a program where containerd's socket is.
inside_cluster() {
    nsenter --target "$(first_process)" --mount -- "$@"
}
