//! Where in a state file an entry stands.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

/// The same lists as the state file's, of which only the positions are read.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Entries {
    endpoints: Vec<Spanned<IgnoredAny>>,
    routes: Vec<Spanned<IgnoredAny>>,
    neighbours: Vec<Spanned<IgnoredAny>>,
    ports: Vec<Spanned<IgnoredAny>>,
    node: Option<Spanned<IgnoredAny>>,
    ipcache: Vec<Spanned<IgnoredAny>>,
    services: Vec<Spanned<IgnoredAny>>,
    policies: Vec<Spanned<IgnoredAny>>,
    egress_gateways: Vec<Spanned<IgnoredAny>>,
    authentications: Vec<Spanned<IgnoredAny>>,
}

/// The line, from 1, of an entry named as in "endpoints[4711]". Reads the text again: only who has to report a mistake
/// pays for it.
pub fn line(text: &str, entry: &str) -> Option<u64> {
    let (list, rest) = entry.split_once('[')?;
    let index: usize = rest.split_once(']')?.0.parse().ok()?;
    // JSON is YAML.
    let entries: Entries = serde_saphyr::from_str_with_options(text, crate::file::options()).ok()?;
    let list = match list {
        "endpoints" => entries.endpoints,
        "routes" => entries.routes,
        "neighbours" => entries.neighbours,
        "ports" => entries.ports,
        "node" => entries.node.into_iter().collect(),
        "ipcache" => entries.ipcache,
        "services" => entries.services,
        "policies" => entries.policies,
        "egress_gateways" => entries.egress_gateways,
        "authentications" => entries.authentications,
        _ => return None,
    };
    let line = list.get(index)?.referenced.line();
    (line > 0).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn entries_are_found_in_yaml_and_json() {
        let yaml = "# A comment.\nroutes:\n  - {prefix: 0.0.0.0/0, port: u}\n\n  - prefix: 10.0.0.0/8\n    port: u\n";
        assert_eq!(line(yaml, "routes[0]"), Some(3));
        assert_eq!(line(yaml, "routes[1]"), Some(5));
        assert_eq!(line(yaml, "routes[2]"), None);
        assert_eq!(line(yaml, "endpoints[0]"), None);
        assert_eq!(line(yaml, "removed[0]"), None);
        assert_eq!(line(yaml, "routes"), None);
        let json = "{\n\"ports\": [\n{\"name\": \"a\"},\n{\"name\": \"b\"}\n]}";
        assert_eq!(line(json, "ports[1]"), Some(4));
    }
}
