//! The Pod Security Standards of Kubernetes, as far as they concern Linux containers: what a pod does beyond a level.
//!
//! Source: "Pod Security Standards" of the Kubernetes documentation, policy version 1.32. An API server judges by the same
//! rules what the labels of a namespace ask for.

use serde_json::Value;

/// Capabilities that `baseline` lets be added.
const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kinds of volumes that `restricted` lets be mounted.
const RESTRICTED_VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
const NONE: &Vec<Value> = &Vec::new();

/// What the pod does that `baseline` forbids, one line each.
#[must_use]
pub fn beyond_baseline(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut found = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[field] == true {
            found.push(field.to_owned());
        }
    }
    for volume in list(&spec["volumes"]) {
        if let Some(path) = volume["hostPath"]["path"].as_str() {
            found.push(format!("hostPath {path}"));
        }
    }
    if list(&spec["securityContext"]["sysctls"]).iter().next().is_some() {
        found.push("sysctls".to_owned());
    }
    found.extend(confinement(&spec["securityContext"]));
    for container in containers(spec) {
        let context = &container["securityContext"];
        if context["privileged"] == true {
            found.push("privileged".to_owned());
        }
        for capability in list(&context["capabilities"]["add"]).iter().filter_map(Value::as_str) {
            if !BASELINE_CAPABILITIES.contains(&capability) {
                found.push(format!("capability {capability}"));
            }
        }
        for port in list(&container["ports"]) {
            // The API server makes every port of a pod in the host's network one of the host.
            let host = if spec["hostNetwork"] == true { &port["containerPort"] } else { &port["hostPort"] };
            if let Some(port) = host.as_u64().filter(|&port| port != 0) {
                found.push(format!("hostPort {port}"));
            }
        }
        if context.get("procMount").is_some_and(|mount| mount != "Default") {
            found.push("procMount".to_owned());
        }
        found.extend(confinement(context));
    }
    found
}

/// What the pod does that `restricted` forbids, `baseline` included, one line each.
#[must_use]
pub fn beyond_restricted(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut found = beyond_baseline(pod);
    for volume in list(&spec["volumes"]) {
        let kinds = volume.as_object().into_iter().flat_map(|volume| volume.keys()).filter(|key| *key != "name");
        found.extend(
            kinds.filter(|kind| !RESTRICTED_VOLUMES.contains(&kind.as_str())).map(|kind| format!("volume {kind}")),
        );
    }
    for container in containers(spec) {
        let context = &container["securityContext"];
        // The container's own word goes before that of the pod.
        let of_either = |field: &str| context.get(field).unwrap_or(&spec["securityContext"][field]).clone();
        if context["allowPrivilegeEscalation"] != false {
            found.push("allowPrivilegeEscalation".to_owned());
        }
        if of_either("runAsNonRoot") != true {
            found.push("runAsNonRoot".to_owned());
        }
        if of_either("runAsUser") == 0 {
            found.push("runAsUser 0".to_owned());
        }
        let seccomp = &of_either("seccompProfile")["type"];
        if seccomp != "RuntimeDefault" && seccomp != "Localhost" {
            found.push("seccompProfile".to_owned());
        }
        if !list(&context["capabilities"]["drop"]).iter().any(|capability| capability == "ALL") {
            found.push("capabilities not dropped".to_owned());
        }
        let added = list(&context["capabilities"]["add"]).iter().filter_map(Value::as_str);
        found.extend(
            added.filter(|it| *it != "NET_BIND_SERVICE" && BASELINE_CAPABILITIES.contains(it)).map(str::to_owned),
        );
    }
    found
}

fn confinement(context: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if context["seccompProfile"]["type"] == "Unconfined" {
        found.push("seccomp Unconfined".to_owned());
    }
    if context["appArmorProfile"]["type"] == "Unconfined" {
        found.push("AppArmor Unconfined".to_owned());
    }
    if context.get("seLinuxOptions").is_some() {
        found.push("seLinuxOptions".to_owned());
    }
    found
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|kind| list(&spec[kind]))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_beyond_a_level_is_named() {
        let harmless = json!({"spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "a", "emptyDir": {}}],
            "containers": [{"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        }});
        assert_eq!(beyond_restricted(&harmless), Vec::<String>::new());
        let plain = json!({"spec": {"containers": [{}]}});
        assert_eq!(beyond_baseline(&plain), Vec::<String>::new());
        assert_eq!(
            beyond_restricted(&plain),
            ["allowPrivilegeEscalation", "runAsNonRoot", "seccompProfile", "capabilities not dropped"]
        );
        let wild = json!({"spec": {
            "hostNetwork": true, "hostPID": true, "securityContext": {"seccompProfile": {"type": "Unconfined"}},
            "volumes": [{"name": "a", "hostPath": {"path": "/"}}],
            "initContainers": [{"securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}}],
            "containers": [{"ports": [{"containerPort": 80}], "securityContext": {"runAsUser": 0}}],
        }});
        let baseline = [
            "hostNetwork",
            "hostPID",
            "hostPath /",
            "seccomp Unconfined",
            "privileged",
            "capability SYS_ADMIN",
            "hostPort 80",
        ];
        assert_eq!(beyond_baseline(&wild), baseline);
        let restricted = beyond_restricted(&wild);
        for more in ["volume hostPath", "runAsUser 0", "CHOWN"] {
            assert!(restricted.iter().any(|found| found == more), "{more} in {restricted:?}");
        }
    }
}
