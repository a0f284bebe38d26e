//! One port from somewhere else than a file: the same checks, the same words.

use toml::{Table, Value};

use crate::read::{Mistakes, Section, read_one_port};
use crate::{Gateway, Mistake, Port};

/// A port as somebody writes it down: the keys of a `[[ports]]` table. Empty texts and zeros are keys that are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are those of `Port`, which says what they are"
)]
pub struct PortFields {
    pub name: String,
    pub role: String,
    pub device: String,
    pub rx_queues: u32,
    pub tx_queues: u32,
    pub rx_descriptors: u32,
    pub tx_descriptors: u32,
    pub mtu: u32,
    pub mac: String,
    pub addresses: Vec<String>,
    pub promiscuous: bool,
}

impl PortFields {
    /// Checks the fields as those of a file are checked, or says all that is wrong with them; the keys of the mistakes
    /// are the names of the fields. Whether another port has the name, device or addresses is not known here.
    pub fn read(&self, gateway: Gateway) -> Result<Port, Vec<Mistake>> {
        // Through the text of a table: there is one reader of ports, and it reads TOML.
        let text = self.table().to_string();
        let mistakes = Mistakes::new(&text);
        let (document, errors) = toml::de::DeTable::parse_recoverable(&text);
        for error in &errors {
            mistakes.add_at(0, "", error.message());
        }
        let port = read_one_port(Section::root(document.get_ref(), &mistakes), gateway);
        match port {
            Some(port) if mistakes.is_empty() => Ok(port),
            _ => Err(mistakes.into_list()),
        }
    }

    fn table(&self) -> Table {
        let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
        let number = |number: u32| (number != 0).then(|| Value::from(i64::from(number)));
        let addresses = self.addresses.iter().map(|it| Value::from(it.as_str()));
        let keys = [
            ("name", text(&self.name)),
            ("role", text(&self.role)),
            ("device", text(&self.device)),
            ("rx_queues", number(self.rx_queues)),
            ("tx_queues", number(self.tx_queues)),
            ("rx_descriptors", number(self.rx_descriptors)),
            ("tx_descriptors", number(self.tx_descriptors)),
            ("mtu", number(self.mtu)),
            ("mac", text(&self.mac)),
            ("addresses", Some(Value::Array(addresses.collect()))),
            ("promiscuous", Some(self.promiscuous.into())),
        ];
        keys.into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }
}
