//! Who a pod is, as far as policy is concerned.

use octoplane_config::schema::IdentityRule;
use wildmatch::WildMatch;

use crate::record::Pod;

/// The identity of an endpoint about which nobody has decided yet (specification of the datapath, section 4: reserved
/// identities).
pub const INIT: u32 = 5;

/// What was decided about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its security identity.
    pub identity: u32,
    /// Its labels, as far as the source knows them.
    pub labels: Vec<String>,
}

/// Decides about pods when they are attached. `None` means "not yet": the endpoint has the identity [`INIT`], and whoever knows
/// better puts it again over the API. A source that asks elsewhere (Cilium's agent, an API server) answers from what it has
/// seen by then: it must not block for longer than a plugin waits, which is five seconds.
pub trait IdentitySource: Send + Sync + 'static {
    /// What is known of this pod.
    fn identity(&self, pod: &Pod) -> Option<Identity>;
}

/// Rules from the configuration: the first that matches decides.
pub struct Rules(Vec<Rule>);

struct Rule {
    namespace: WildMatch,
    name: WildMatch,
    decision: Identity,
}

impl Rules {
    /// In the order of the configuration.
    pub fn new(rules: &[IdentityRule]) -> Self {
        let rule = |rule: &IdentityRule| Rule {
            namespace: WildMatch::new(&rule.namespace),
            name: WildMatch::new(&rule.name),
            decision: Identity {
                identity: rule.identity,
                labels: rule.labels.clone(),
            },
        };
        Self(rules.iter().map(rule).collect())
    }
}

impl IdentitySource for Rules {
    fn identity(&self, pod: &Pod) -> Option<Identity> {
        let matches = |rule: &&Rule| rule.namespace.matches(&pod.namespace) && rule.name.matches(&pod.name);
        self.0.iter().find(matches).map(|rule| rule.decision.clone())
    }
}

/// Leaves all decisions to the agent.
pub struct Agent;

impl IdentitySource for Agent {
    fn identity(&self, _: &Pod) -> Option<Identity> {
        None
    }
}

/// Labels that every pod has, as Cilium spells them.
pub(crate) fn labels_of(pod: &Pod) -> Vec<String> {
    if pod.namespace.is_empty() {
        return Vec::new();
    }
    vec![format!("k8s:io.kubernetes.pod.namespace={}", pod.namespace)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(namespace: &str, name: &str, identity: u32) -> IdentityRule {
        IdentityRule {
            namespace: namespace.into(),
            name: name.into(),
            identity,
            labels: vec![format!("rule={identity}")],
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = Rules::new(&[
            rule("kube-*", "*", 7),
            rule("default", "web-?", 8),
            rule("default", "*", 9),
        ]);
        let decided = |namespace: &str, name: &str| {
            rules
                .identity(&Pod {
                    namespace: namespace.into(),
                    name: name.into(),
                })
                .map(|it| it.identity)
        };
        assert_eq!(decided("kube-system", "coredns-1"), Some(7));
        assert_eq!(decided("default", "web-1"), Some(8));
        assert_eq!(decided("default", "web-11"), Some(9));
        assert_eq!(decided("other", "web-1"), None);
        assert_eq!(decided("", ""), None);
        assert_eq!(Agent.identity(&Pod::default()), None);
    }
}
