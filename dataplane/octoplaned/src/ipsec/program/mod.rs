//! Security associations and policies of one's own: what the API programs besides nodes.

pub(crate) mod file;
mod read;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use octoplane_api::v1;
use octoplane_config::{Ipsec as Config, IpsecTooBig};
use octoplane_control::IpsecRefusal;
use octoplane_esp::db::{ApplyError, Change, ChangeError, Database, Event, PolicyConfig};
use octoplane_esp::sa::{SaKey, Used};
use octoplane_esp::view::Action;
use octoplane_esp::{Direction, Sa, SaConfig};
use tracing::info;

use super::Inner;
use file::{Saved, SavedSa};
pub(crate) use show::{name, policy};

/// What is known of a security association besides what the database knows.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// As it was programmed, without keys.
    pub(crate) config: v1::IpsecSaConfig,
    /// When it was added, in milliseconds since 1970.
    added: u64,
    /// What was used of its lifetime before the daemon started: packets and bytes, and time.
    pub(crate) before: Used,
    aged: Duration,
    /// Those that were added later have greater ones.
    order: u64,
}

/// Security associations and policies of one's own.
#[derive(Debug)]
pub(crate) struct Programmed {
    /// Whether there may be any.
    pub(crate) allowed: bool,
    pub(crate) too_big: IpsecTooBig,
    path: PathBuf,
    pub(crate) sas: BTreeMap<SaKey, Known>,
    order: u64,
}

impl Programmed {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            allowed: config.policies,
            too_big: config.too_big,
            path: config.directory.join("programmed"),
            sas: BTreeMap::new(),
            order: 0,
        }
    }
}

/// Milliseconds since 1970.
fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Of the security association that something happened to.
pub(crate) fn reqid(database: &Database, event: &Event) -> u32 {
    match event {
        Event::Soft { id, .. } | Event::Hard { id, .. } => {
            database.snapshot().sa(*id).map_or(0, |sa| sa.reqid())
        }
        Event::NotReserved { .. } => 0,
    }
}

/// Seconds since it was added.
pub(crate) fn age(known: &Known) -> u64 {
    milliseconds().saturating_sub(known.added) / 1000
}

/// "live", "rekey" or "expired".
pub(crate) fn state(sa: &Sa, now: u64) -> &'static str {
    let (lifetime, used) = (&sa.config().lifetime, sa.used());
    let age = Duration::from_nanos(now.saturating_sub(sa.added()));
    let passed = |limit: Option<u64>, used| limit.is_some_and(|limit| used >= limit);
    let by_time = |limit: Option<Duration>| limit.is_some_and(|limit| age >= limit);
    let numbers = match sa.config().direction {
        Direction::Outbound => sa.sequence().next(),
        Direction::Inbound => 0,
    };
    let end = sa.sequence().end();
    if passed(lifetime.hard_bytes, used.bytes)
        || passed(lifetime.hard_packets, used.packets)
        || by_time(lifetime.hard_time)
        || numbers >= end
    {
        return "expired";
    }
    if passed(lifetime.soft_bytes, used.bytes)
        || passed(lifetime.soft_packets, used.packets)
        || by_time(lifetime.soft_time)
        || numbers >= end / 8 * 7
    {
        return "rekey";
    }
    "live"
}

/// What is left of a lifetime. What is over stays over: a limit of 0 would be none.
fn rest(config: &mut SaConfig, age: Duration, used: Used) {
    let lifetime = &mut config.lifetime;
    let less = |limit: &mut Option<u64>, used: u64| {
        if let Some(limit) = limit {
            *limit = limit.saturating_sub(used).max(1);
        }
    };
    less(&mut lifetime.soft_bytes, used.bytes);
    less(&mut lifetime.hard_bytes, used.bytes);
    less(&mut lifetime.soft_packets, used.packets);
    less(&mut lifetime.hard_packets, used.packets);
    for limit in [&mut lifetime.soft_time, &mut lifetime.hard_time]
        .into_iter()
        .flatten()
    {
        *limit = limit.saturating_sub(age).max(Duration::from_nanos(1));
    }
}

/// Changes, each with the field that it comes from.
#[derive(Default)]
struct Changes {
    changes: Vec<Change>,
    fields: Vec<String>,
}

impl Changes {
    fn add(&mut self, field: impl Into<String>, change: Change) {
        self.changes.push(change);
        self.fields.push(field.into());
    }
}

/// A request that was read: what there will be.
struct Wanted {
    changes: Changes,
    sas: BTreeMap<SaKey, Known>,
    policies: BTreeMap<u32, PolicyConfig>,
    order: u64,
}

fn invalid(field: impl Into<String>, text: impl Into<String>) -> IpsecRefusal {
    IpsecRefusal::Invalid {
        field: field.into(),
        text: text.into(),
    }
}

/// The newest outbound security association of each reqid.
fn newest(sas: &BTreeMap<SaKey, Known>) -> BTreeMap<u32, SaKey> {
    let mut found = BTreeMap::<u32, (u64, SaKey)>::new();
    for (key, known) in sas.iter().filter(|(key, _)| key.direction == Direction::Outbound) {
        let best = found.entry(known.config.reqid).or_insert((known.order, *key));
        if known.order >= best.0 {
            *best = (known.order, *key);
        }
    }
    found.into_iter().map(|(reqid, (_, key))| (reqid, key)).collect()
}

impl Inner {
    fn policies_by_id(&self) -> BTreeMap<u32, PolicyConfig> {
        let policies = self.database.policies();
        policies.map(|it| (it.id, PolicyConfig::clone(it))).collect()
    }

    /// What a request asks for. `lived` is how long the security associations are there already, and what was used of them; by
    /// their place in the request.
    fn read(
        &self,
        request: &v1::ProgramIpsecRequest,
        lived: Option<&[SavedSa]>,
    ) -> Result<Wanted, IpsecRefusal> {
        let mut changes = Changes::default();
        let (mut sas, mut policies) = (self.programmed.sas.clone(), self.policies_by_id());
        let mut order = self.programmed.order;
        let now = milliseconds();

        // Read before anything else: mistakes are told in the order of the fields.
        let (mut new_sas, mut new_policies) = (BTreeMap::new(), BTreeMap::new());
        for (index, message) in request.sas.iter().enumerate() {
            let field = format!("sas[{index}]");
            let mut config = read::sa(message, &field)?;
            let key = config.key();
            if let Some(other) = new_sas.insert(key, index) {
                return Err(invalid(field, format!("{key} is in sas[{other}], too")));
            }
            let mut plain = message.clone();
            file::erase(&mut plain);
            let known = match lived.and_then(|lived| lived.get(index)) {
                Some(lived) => {
                    let used = Used {
                        packets: lived.packets,
                        bytes: lived.bytes,
                    };
                    let aged = Duration::from_millis(now.saturating_sub(lived.added));
                    rest(&mut config, aged, used);
                    Known {
                        config: plain,
                        added: lived.added,
                        before: used,
                        aged,
                        order,
                    }
                }
                None => Known {
                    config: plain,
                    added: now,
                    before: Used::default(),
                    aged: Duration::ZERO,
                    order,
                },
            };
            let there = self.database.snapshot().sad.find(&key);
            let same = there.is_some_and(|sa| sa.fingerprint() == config.keys.fingerprint());
            order += 1;
            match sas.get_mut(&key) {
                // It goes on as it is.
                Some(old) if same && old.config == known.config => {}
                // It goes on with other limits, say; what it has used stays.
                Some(old) if same => {
                    rest(&mut config, old.aged, old.before);
                    let (added, before, aged) = (old.added, old.before, old.aged);
                    *old = Known {
                        added,
                        before,
                        aged,
                        ..known
                    };
                    changes.add(field, Change::PutSa(Box::new(config)));
                }
                _ => {
                    sas.insert(key, known);
                    let config = Box::new(config);
                    changes.add(
                        field,
                        match lived {
                            Some(_) => Change::RestoreSa(config),
                            None => Change::PutSa(config),
                        },
                    );
                }
            }
        }
        for (index, message) in request.policies.iter().enumerate() {
            let field = format!("policies[{index}]");
            let policy = read::policy(message, &field)?;
            if let Some((other, _)) = new_policies.insert(policy.id, (index, policy)) {
                let text = format!("{} is that of policies[{other}], too", message.id);
                return Err(invalid(format!("{field}.id"), text));
            }
        }
        let mut gone_sas = BTreeMap::new();
        for (index, message) in request.remove_sas.iter().enumerate() {
            let field = format!("remove_sas[{index}]");
            let key = read::name(message, &field)?;
            if let Some(added) = new_sas.get(&key) {
                return Err(invalid(field, format!("{key} is in sas[{added}], too")));
            }
            gone_sas.insert(key, field);
        }
        let mut gone_policies = BTreeMap::new();
        for (index, id) in request.remove_policies.iter().enumerate() {
            gone_policies.insert(*id, format!("remove_policies[{index}]"));
        }
        if request.replace_all {
            let all = sas.keys().filter(|key| !new_sas.contains_key(*key));
            gone_sas.extend(all.map(|key| (*key, "replace_all".to_owned())));
            let all = policies.keys().filter(|id| !new_policies.contains_key(*id));
            gone_policies.extend(all.map(|id| (*id, "replace_all".to_owned())));
        }

        let before = newest(&self.programmed.sas);
        gone_sas.retain(|key, _| sas.remove(key).is_some());
        let after = newest(&sas);
        let fresh: BTreeSet<_> = after
            .iter()
            .filter(|(reqid, key)| before.get(reqid) != Some(*key))
            .collect();
        // The tables that policies are checked against have these.
        for (reqid, key) in fresh {
            changes.add("sas", Change::PutTunnel(*reqid, *key));
        }
        for (id, field) in gone_policies {
            if policies.remove(&id).is_some() && !new_policies.contains_key(&id) {
                changes.add(field, Change::DeletePolicy(id));
            }
        }
        let inbound: BTreeSet<u32> = sas
            .iter()
            .filter(|(key, _)| key.direction == Direction::Inbound)
            .map(|(_, known)| known.config.reqid)
            .collect();
        for (id, (index, policy)) in new_policies {
            let field = format!("policies[{index}]");
            if let Action::Protect(reqid) = policy.action {
                let (there, which) = match policy.direction {
                    Direction::Outbound => (after.contains_key(&reqid), "outbound"),
                    Direction::Inbound => (inbound.contains(&reqid), "inbound"),
                };
                // The daemon starts with what it had.
                if !there && lived.is_none() {
                    let text = format!("{reqid} is that of no {which} security association");
                    return Err(invalid(format!("{field}.reqid"), text));
                }
            }
            policies.insert(id, policy.clone());
            changes.add(field, Change::PutPolicy(policy));
        }
        for (reqid, key) in &before {
            if after.contains_key(reqid) {
                continue;
            }
            let user = policies.values().find(|policy| {
                policy.direction == Direction::Outbound && policy.action == Action::Protect(*reqid)
            });
            let field = gone_sas.get(key).cloned().unwrap_or_else(|| "sas".to_owned());
            if let Some(policy) = user {
                let text = format!(
                    "{key} is the last outbound one of reqid {reqid}, which policy {} names",
                    policy.id
                );
                return Err(invalid(field, text));
            }
            changes.add(field, Change::DeleteTunnel(*reqid));
        }
        for (key, field) in gone_sas {
            changes.add(field, Change::DeleteSa(key));
        }
        Ok(Wanted {
            changes,
            sas,
            policies,
            order,
        })
    }

    /// Everything as it is kept: keys are those of `changes`, or else those that are in use.
    fn saved(
        &self,
        sas: &BTreeMap<SaKey, Known>,
        policies: &BTreeMap<u32, PolicyConfig>,
        changes: &[Change],
    ) -> Saved {
        let put: BTreeMap<SaKey, &SaConfig> = changes
            .iter()
            .filter_map(|change| match change {
                Change::PutSa(config) => Some((config.key(), &**config)),
                _ => None,
            })
            .collect();
        let snapshot = self.database.snapshot();
        let mut sas: Vec<_> = sas.iter().collect();
        sas.sort_by_key(|(_, known)| known.order);
        let mut saved = Saved::default();
        for (key, known) in sas {
            let there = snapshot.sad.find(key);
            let (keys, algorithm) = match (put.get(key), there) {
                (Some(config), _) => (&config.keys, config.algorithm),
                (None, Some(sa)) => (sa.session().keys(), sa.config().algorithm),
                (None, None) => continue,
            };
            let same = there.filter(|sa| {
                put.get(key)
                    .is_none_or(|it| it.keys.fingerprint() == sa.fingerprint())
            });
            let used = same.map(|sa| sa.used()).unwrap_or_default();
            let mut config = known.config.clone();
            // Room for the salt first: growing would leave a copy behind.
            config.key = Vec::with_capacity(keys.cipher.len() + algorithm.salt_len());
            config.key.extend_from_slice(keys.cipher.expose());
            config.key.extend_from_slice(&keys.salt()[..algorithm.salt_len()]);
            config.auth_key = keys.auth.expose().to_vec();
            saved.sas.push(SavedSa {
                config: Some(config),
                added: known.added,
                packets: known.before.packets.saturating_add(used.packets),
                bytes: known.before.bytes.saturating_add(used.bytes),
            });
        }
        saved.policies = policies
            .values()
            .map(|policy| show::policy(policy, snapshot))
            .collect();
        saved
    }

    /// Does what a request asks for: all of it or nothing.
    pub(crate) fn program(
        &mut self,
        now: u64,
        mut request: v1::ProgramIpsecRequest,
    ) -> Result<u64, IpsecRefusal> {
        if !self.programmed.allowed {
            let text = "ipsec.policies is not on in the configuration of the daemon";
            return Err(IpsecRefusal::Failed(text.into()));
        }
        let wanted = self.read(&request, None);
        request.sas.iter_mut().for_each(file::erase);
        let Wanted {
            changes: Changes { changes, fields },
            sas,
            policies,
            order,
        } = wanted?;
        let path = self.programmed.path.clone();
        let failed = |error: std::io::Error| IpsecRefusal::Failed(format!("{}: {error}", path.display()));
        let saved = self.saved(&sas, &policies, &changes);
        file::prepare(&path, &saved).map_err(failed)?;
        drop(saved);
        if let Err(error) = self.database.apply(now, changes) {
            file::discard(&path);
            return Err(refusal(error, &fields));
        }
        self.programmed.sas = sas;
        self.programmed.order = order;
        file::commit(&path).map_err(|error| {
            let text = format!(
                "{}: {error}: it is done, but will be forgotten at the next start",
                path.display()
            );
            IpsecRefusal::Failed(text)
        })?;
        Ok(self.database.snapshot().revision)
    }

    /// Writes everything down as it is.
    pub(crate) fn save(&self) -> std::io::Result<()> {
        if !self.programmed.allowed {
            return Ok(());
        }
        let saved = self.saved(&self.programmed.sas, &self.policies_by_id(), &[]);
        file::prepare(&self.programmed.path, &saved)?;
        file::commit(&self.programmed.path)
    }

    /// Programs what was there before the daemon started.
    pub(crate) fn restore(&mut self, now: u64) -> anyhow::Result<()> {
        if !self.programmed.allowed {
            return Ok(());
        }
        let context = || format!("ipsec.directory: {}", self.programmed.path.display());
        let mut saved = file::load(&self.programmed.path).context("ipsec.directory")?;
        if saved.sas.is_empty() && saved.policies.is_empty() {
            return Ok(());
        }
        let mut request = v1::ProgramIpsecRequest {
            policies: std::mem::take(&mut saved.policies),
            sas: saved
                .sas
                .iter_mut()
                .map(|sa| sa.config.take().unwrap_or_default())
                .collect(),
            ..Default::default()
        };
        let wanted = self.read(&request, Some(&saved.sas));
        request.sas.iter_mut().for_each(file::erase);
        let Wanted {
            changes: Changes { changes, fields },
            sas,
            policies,
            order,
        } = wanted.with_context(context)?;
        self.database
            .apply(now, changes)
            .map_err(|error| refusal(error, &fields))
            .with_context(context)?;
        info!(
            "{} security associations and {} policies of before",
            sas.len(),
            policies.len()
        );
        self.programmed.sas = sas;
        self.programmed.order = order;
        Ok(())
    }
}

/// The same under the name of the field.
fn refusal(error: ApplyError, fields: &[String]) -> IpsecRefusal {
    let ApplyError { index, error } = error;
    let field = fields.get(index).cloned().unwrap_or_default();
    match error {
        ChangeError::Full { .. } => IpsecRefusal::Full(format!("{field}: {error}")),
        ChangeError::NotReserved { .. } => IpsecRefusal::Failed(format!("{field}: {error}")),
        error => invalid(field, error.to_string()),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
