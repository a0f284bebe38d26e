//! Keys and values of the database.
//!
//! A key is the number of the object's kind and what names it among its kind; a value is its message. Numbers are never
//! given another meaning.

use octoplane_api::v1;
use prost::Message as _;

/// What a row holds. Policies are split, so that an entry can change without the others being written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Endpoint = 1,
    Route = 2,
    Neighbour = 3,
    /// What was set of a port: MTU and administrative state, where they are not as configured.
    Port = 4,
    Node = 5,
    Ipcache = 6,
    Service = 7,
    /// A policy without its entries.
    Policy = 8,
    PolicyEntry = 9,
    EgressGateway = 10,
    /// A port that came over the API.
    AddedPort = 11,
    Authentication = 12,
}

impl Kind {
    pub(super) const ALL: [Self; 12] = [
        Self::Endpoint,
        Self::Route,
        Self::Neighbour,
        Self::Port,
        Self::Node,
        Self::Ipcache,
        Self::Service,
        Self::Policy,
        Self::PolicyEntry,
        Self::EgressGateway,
        Self::AddedPort,
        Self::Authentication,
    ];

    /// The key of an object of this kind.
    pub(super) fn key(self, name: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + name.len());
        key.push(self as u8);
        key.extend_from_slice(name);
        key
    }
}

/// What names an endpoint or a policy.
pub(super) fn number(id: u32) -> [u8; 4] {
    id.to_be_bytes()
}

/// What names an object by two texts.
pub(super) fn pair(one: &str, other: &str) -> Vec<u8> {
    // Neither has a zero byte.
    [one.as_bytes(), &[0], other.as_bytes()].concat()
}

/// What names an entry of a policy.
pub(super) fn entry(endpoint: u32, it: &v1::PolicyEntry) -> Vec<u8> {
    let mut name = number(endpoint).to_vec();
    let fields = [it.identity, it.protocol, it.port, it.port_prefix_len];
    name.extend(it.direction.to_be_bytes());
    name.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
    name
}

/// What names an authentication.
pub(super) fn authentication(it: &v1::Authentication) -> Vec<u8> {
    let numbers = [it.local_identity, it.remote_identity, it.auth_type];
    let mut name: Vec<u8> = numbers.iter().flat_map(|it| it.to_be_bytes()).collect();
    name.extend_from_slice(it.remote_node.as_bytes());
    name
}

/// The rows of a file as objects.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Objects {
    /// All but what was learned and the ports that were added.
    pub(super) programmed: v1::ReplaceRequest,
    pub(super) learned: Vec<v1::Neighbour>,
    pub(super) ports: Vec<v1::AddPortRequest>,
}

impl Objects {
    /// Takes one more row, in the order of the keys.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let Some((&number, name)) = key.split_first() else {
            return Err("a row has no key".into());
        };
        let Some(kind) = Kind::ALL.into_iter().find(|kind| *kind as u8 == number) else {
            return Err(format!("there are objects of an unknown kind ({number})"));
        };
        let read = |error: prost::DecodeError| format!("a row of kind {kind:?} cannot be read: {error}");
        let all = &mut self.programmed;
        match kind {
            Kind::Endpoint => all.endpoints.push(v1::Endpoint::decode(value).map_err(read)?),
            Kind::Route => all.routes.push(v1::Route::decode(value).map_err(read)?),
            Kind::Neighbour => {
                let neighbour = v1::Neighbour::decode(value).map_err(read)?;
                match neighbour.learned {
                    true => self.learned.push(neighbour),
                    false => all.neighbours.push(neighbour),
                }
            }
            Kind::Port => all.ports.push(v1::Port::decode(value).map_err(read)?),
            Kind::Node => all.node = Some(v1::Node::decode(value).map_err(read)?),
            Kind::Ipcache => all.ipcache.push(v1::Ipcache::decode(value).map_err(read)?),
            Kind::Service => all.services.push(v1::Service::decode(value).map_err(read)?),
            Kind::Policy => all.policies.push(v1::Policy::decode(value).map_err(read)?),
            Kind::PolicyEntry => {
                let entry = v1::PolicyEntry::decode(value).map_err(read)?;
                let endpoint = name.first_chunk().map(|id| u32::from_be_bytes(*id));
                // The keys of policies and of their entries have the same order.
                let place = all
                    .policies
                    .binary_search_by_key(&endpoint, |policy| Some(policy.endpoint))
                    .map_err(|_| "there is an entry of a policy that is not there".to_owned())?;
                all.policies[place].entries.push(entry);
            }
            Kind::EgressGateway => {
                all.egress_gateways
                    .push(v1::EgressGateway::decode(value).map_err(read)?);
            }
            Kind::Authentication => {
                all.authentications
                    .push(v1::Authentication::decode(value).map_err(read)?);
            }
            Kind::AddedPort => self.ports.push(v1::AddPortRequest::decode(value).map_err(read)?),
        }
        Ok(())
    }
}
