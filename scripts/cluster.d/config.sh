# shellcheck shell=bash
# The cluster's keys and the settings of its components, all below the directory that
# the components see as /var/lib/executor-cluster ($inside).

readonly config=$cluster/lib/executor-cluster
readonly inside=/var/lib/executor-cluster

write_config() {
    local version=$1
    mkdir -p "$config"/{bin,cni,pki}
    (
        umask 077
        make_keys
        write_accesses
    )
    write_containerd_config
    write_network_config
    write_scheduler_config "$version"
    write_kubelet_config "$version"
    # Without a name server a look-up in a pod fails at once instead of by timeout.
    : >"$config/resolv.conf"
}

# One authority signs the API server's certificate and the one by which the API server
# shows the kubelet who it is. Everyone else has a token.
make_keys() {
    local pki=$config/pki
    new_key "$pki/ca.key"
    openssl req -x509 -new -key "$pki/ca.key" -days 3650 -subj /CN=executor-cluster \
        -addext keyUsage=critical,keyCertSign,cRLSign -out "$pki/ca.crt"
    new_certificate apiserver /CN=kube-apiserver serverAuth \
        "IP:$bridge_address,IP:$service_address,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    new_certificate kubelet-client /O=system:masters/CN=kube-apiserver clientAuth DNS:kube-apiserver
    new_key "$pki/service-accounts.key"
    openssl pkey -in "$pki/service-accounts.key" -pubout -out "$pki/service-accounts.pub"
}

new_key() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$1"
}

# new_certificate NAME SUBJECT USAGE ALTERNATIVE_NAMES
new_certificate() {
    local pki=$config/pki
    new_key "$pki/$1.key"
    openssl req -new -key "$pki/$1.key" -subj "$2" | openssl x509 -req -days 3650 \
        -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -out "$pki/$1.crt" -extfile <(
        printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
            "extendedKeyUsage=$3" "subjectAltName=$4"
    ) 2>/dev/null
}

write_accesses() {
    : >"$config/tokens.csv"
    new_access admin admin system:masters
    new_access controller-manager system:kube-controller-manager ""
    new_access scheduler system:kube-scheduler ""
    new_access kubelet system:node:node1 system:nodes
    cp "$config/admin.kubeconfig" "$kubeconfig"
}

# new_access NAME USER GROUP
new_access() {
    local token
    token=$(openssl rand -hex 24)
    echo "$token,$2,$2,\"$3\"" >>"$config/tokens.csv"
    cat >"$config/$1.kubeconfig" <<END
apiVersion: v1
kind: Config
current-context: executor-cluster
contexts:
- name: executor-cluster
  context: {cluster: executor-cluster, user: $1}
clusters:
- name: executor-cluster
  cluster:
    server: https://$bridge_address:$api_port
    certificate-authority-data: $(base64 --wrap=0 "$config/pki/ca.crt")
users:
- name: $1
  user: {token: $token}
END
}

write_containerd_config() {
    cat >"$config/containerd.toml" <<END
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$pause_image"
# Root without CAP_SYS_RESOURCE cannot lower an OOM score, and no pod would start.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$inside/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
END
}

write_network_config() {
    cat >"$config/cni/executor-cluster.conflist" <<END
{
  "cniVersion": "0.4.0",
  "name": "executor-cluster",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "$bridge",
      "isDefaultGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "$pod_network", "gateway": "$bridge_address"}]]
      }
    }
  ]
}
END
}

write_scheduler_config() {
    local api=v1
    [[ $1 != "$debian_version" ]] || api=v1beta1
    cat >"$config/scheduler.yaml" <<END
apiVersion: kubescheduler.config.k8s.io/$api
kind: KubeSchedulerConfiguration
clientConnection: {kubeconfig: $inside/scheduler.kubeconfig, qps: 200, burst: 400}
leaderElection: {leaderElect: false}
END
}

# The request rates are raised as on clusters that run many jobs. Images cannot be
# pulled again, so none is ever collected, and a full disk is no reason to evict.
write_kubelet_config() {
    cat >"$config/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $bridge_address
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $inside/pki/ca.crt}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$control_group
evictionHard:
  memory.available: 50Mi
  nodefs.available: 1%
  nodefs.inodesFree: 1%
  imagefs.available: 1%
eventBurst: 200
eventRecordQPS: 100
failSwapOn: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
kubeAPIBurst: 200
kubeAPIQPS: 100
makeIPTablesUtilChains: false
maxPods: 250
oomScoreAdj: 0
resolvConf: $inside/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
END
    if [[ $1 != "$debian_version" ]]; then
        cat >>"$config/kubelet.yaml" <<END
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failCgroupV1: false
END
    fi
}
