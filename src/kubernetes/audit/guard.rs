//! How does a cluster refuse Services that open node ports from now on?
//!
//! By a policy of the API server itself: no webhook that could fail. What opens node ports already may keep them and may be changed
//! otherwise, so that what cannot be replaced yet goes on living.

/// The policy and its binding, for `kubectl apply -f -`.
pub fn policy() -> &'static str {
    POLICY
}

const POLICY: &str = r#"# Refuses Services that open node ports from now on, written by `tidegate audit --guard`; apply with: kubectl apply -f -
# What opens some already keeps them and may be changed otherwise. A namespace may have them again by
#   kubectl label namespace NAME tidegate.io/node-ports=allowed
# Remove it:  kubectl delete validatingadmissionpolicybinding,validatingadmissionpolicy no-node-ports.tidegate.io
# Needs Kubernetes 1.30 or newer.
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: no-node-ports.tidegate.io
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - { apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [services] }
  variables:
    - name: opens
      expression: >-
        object.spec.type == 'NodePort' || (object.spec.type == 'LoadBalancer' &&
        (!has(object.spec.allocateLoadBalancerNodePorts) || object.spec.allocateLoadBalancerNodePorts ||
        object.spec.ports.exists(port, has(port.nodePort) && port.nodePort > 0)))
    - name: opened
      expression: >-
        oldObject != null && (oldObject.spec.type == 'NodePort' || (oldObject.spec.type == 'LoadBalancer' &&
        oldObject.spec.ports.exists(port, has(port.nodePort) && port.nodePort > 0)))
  validations:
    - expression: "!variables.opens || variables.opened"
      reason: Forbidden
      message: >-
        this Service would open ports on every address of every node: make it a ClusterIP and give it a route of Tidegate
        (annotation tidegate.io/expose), or set allocateLoadBalancerNodePorts to false
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: no-node-ports.tidegate.io
spec:
  policyName: no-node-ports.tidegate.io
  validationActions: [Deny]
  matchResources:
    namespaceSelector:
      matchExpressions:
        - { key: tidegate.io/node-ports, operator: NotIn, values: [allowed] }
"#;
