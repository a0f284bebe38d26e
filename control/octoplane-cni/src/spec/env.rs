//! Parameters of a call, which come as variables of the environment (specification, "Parameters").

use std::path::PathBuf;

use super::{CniError, Code};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Version,
    Status,
    Gc,
}

/// The parameters. What the command needs is there.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    pub(crate) command: Command,
    /// CNI_CONTAINERID.
    pub(crate) container: String,
    /// CNI_IFNAME: name of the interface in the pod.
    pub(crate) interface: String,
    /// CNI_NETNS: the pod's network namespace; may be empty with DEL.
    pub(crate) netns: String,
    /// CNI_ARGS by name.
    args: Vec<(String, String)>,
    /// CNI_PATH: where plugins are.
    pub(crate) path: Vec<PathBuf>,
}

impl Environment {
    /// Reads them by `get`, or names the first one that is missing.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let wrong = |text: String| CniError::new(Code::Environment, text);
        let command = match get("CNI_COMMAND").unwrap_or_default().as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "VERSION" => Command::Version,
            "STATUS" => Command::Status,
            "GC" => Command::Gc,
            "" => return Err(wrong("CNI_COMMAND: is missing".into())),
            other => {
                return Err(wrong(format!(
                    "CNI_COMMAND: \"{other}\" is unknown, expected ADD, DEL, CHECK, GC, STATUS or VERSION"
                )));
            }
        };
        let of_container = matches!(command, Command::Add | Command::Del | Command::Check);
        let needed = |name: &str, needed: bool| match get(name).filter(|text| !text.is_empty()) {
            None if needed => Err(wrong(format!("{name}: is missing"))),
            text => Ok(text.unwrap_or_default()),
        };
        let interface = needed("CNI_IFNAME", of_container)?;
        // What the kernel takes for a name of an interface (dev_valid_name).
        let name = interface.len() <= 15
            && !matches!(interface.as_str(), "." | "..")
            && !interface.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if !name {
            return Err(wrong(format!(
                "CNI_IFNAME: \"{interface}\" is not the name of an interface"
            )));
        }
        let container = needed("CNI_CONTAINERID", of_container)?;
        // The specification's own expression.
        let good = container
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
            && !container.starts_with(|c: char| !c.is_ascii_alphanumeric());
        if !good {
            return Err(wrong(format!(
                "CNI_CONTAINERID: \"{container}\" is invalid, expected letters, digits, \"_\", \".\" and \"-\", a letter or digit \
                 first"
            )));
        }
        let pairs = get("CNI_ARGS").unwrap_or_default();
        let pairs = pairs.split(';').filter(|pair| !pair.is_empty());
        let args = pairs
            .map(|pair| {
                let (name, value) = pair
                    .split_once('=')
                    .ok_or_else(|| wrong(format!("CNI_ARGS: \"{pair}\" is not NAME=VALUE")))?;
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect::<Result<_, CniError>>()?;
        Ok(Self {
            command,
            container,
            interface,
            netns: needed("CNI_NETNS", matches!(command, Command::Add | Command::Check))?,
            args,
            path: get("CNI_PATH")
                .unwrap_or_default()
                .split(':')
                .filter(|text| !text.is_empty())
                .map(PathBuf::from)
                .collect(),
        })
    }

    /// One of CNI_ARGS, if it is there and not empty.
    pub(crate) fn arg(&self, name: &str) -> Option<&str> {
        let found = self.args.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, CniError> {
        Environment::read(|name| {
            let found = pairs.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ADD: [(&str, &str); 4] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c-1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
    ];

    #[test]
    fn what_the_command_needs_must_be_there() {
        let environment =
            read(&[&ADD[..], &[("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web;IP=")]].concat()).unwrap();
        assert_eq!(environment.arg("K8S_POD_NAME"), Some("web"));
        assert_eq!(environment.arg("IP"), None);
        for missing in 0..ADD.len() {
            let mut pairs = ADD.to_vec();
            let (name, _) = pairs.remove(missing);
            let error = read(&pairs).unwrap_err();
            assert_eq!((error.code, error.message), (4, format!("{name}: is missing")));
        }
        // DEL has to do without a namespace (specification, "DEL").
        let del = [("CNI_COMMAND", "DEL"), ADD[1], ADD[2]];
        assert_eq!(read(&del).unwrap().netns, "");
        assert_eq!(read(&[("CNI_COMMAND", "GC")]).unwrap().command, Command::Gc);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |index: usize, value| {
            let mut pairs = ADD.to_vec();
            pairs[index].1 = value;
            read(&pairs).unwrap_err().message
        };
        assert!(with(0, "add").starts_with("CNI_COMMAND: \"add\" is unknown"));
        assert!(with(1, "-c").starts_with("CNI_CONTAINERID: \"-c\""));
        assert!(with(1, "a/b").starts_with("CNI_CONTAINERID: \"a/b\""));
        for name in ["..", "a/b", "a b", "sixteen-letters-"] {
            assert!(with(2, name).starts_with("CNI_IFNAME: "), "{name}");
        }
        let args = [&ADD[..], &[("CNI_ARGS", "x")]].concat();
        assert!(read(&args).unwrap_err().message.starts_with("CNI_ARGS: \"x\""));
    }
}
