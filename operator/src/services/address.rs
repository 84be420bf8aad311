//! Where a pod listens.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

/// A pod's address, once it has one.
pub(super) fn ip(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())
}

/// `http://ip:port`, with the port that the pod's own container names first.
pub(super) fn of(pod: &Pod) -> Option<String> {
    let ip: IpAddr = ip(pod)?.parse().ok()?;
    let container = pod.spec.as_ref()?.containers.first()?;
    let port = container.ports.as_ref()?.first()?.container_port;
    Some(match ip {
        IpAddr::V4(ip) => format!("http://{ip}:{port}"),
        IpAddr::V6(ip) => format!("http://[{ip}]:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_own_port_is_used_and_an_ipv6_address_is_bracketed() {
        let pod = |ip: &str| -> Pod {
            serde_json::from_value(json!({
                "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 3214}]}]},
                "status": {"podIP": ip}
            }))
            .unwrap()
        };
        assert_eq!(of(&pod("10.0.0.7")).unwrap(), "http://10.0.0.7:3214");
        assert_eq!(of(&pod("fd00::7")).unwrap(), "http://[fd00::7]:3214");
        assert_eq!(of(&pod("")), None);
    }
}
