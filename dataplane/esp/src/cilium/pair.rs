//! The security associations of a pair of nodes.

use std::time::Duration;

use super::derive::{DeriveError, End, derive};
use super::key_file::{CiliumKey, KeySecrets};
use crate::key::KeyMaterial;
use crate::sa::{Direction, Lifetime, Mark, Mode, OuterHeader, SaConfig};

/// Replay window of Cilium's security associations.
pub const REPLAY_WINDOW: u32 = 1024;

/// Both directions between this node and another, for one pair of tunnel addresses and one key.
#[derive(Debug, Clone)]
pub struct PairSas {
    /// From here to there.
    pub outbound: SaConfig,
    /// From there to here.
    pub inbound: SaConfig,
}

/// The two security associations as Cilium has them: tunnel mode, ESN, replay window of 1024, the key's number as SPI, keys
/// derived for each direction (section 1.9). Every pair of tunnel addresses of the same two nodes gets keys of its own.
/// `hard_time` limits how long they may be used, if at all.
pub fn pair_sas(
    key: &CiliumKey,
    local: End<'_>,
    remote: End<'_>,
    hard_time: Option<Duration>,
) -> Result<PairSas, DeriveError> {
    let config = |direction, source: End<'_>, destination: End<'_>| -> Result<SaConfig, DeriveError> {
        let keys = match &key.secrets {
            KeySecrets::Aead(secret) => KeyMaterial::aead(&derive(secret.expose(), source, destination)?),
            KeySecrets::CbcHmac { auth, cipher } => KeyMaterial::cbc_hmac(
                &derive(cipher.expose(), source, destination)?,
                &derive(auth.expose(), source, destination)?,
            ),
        };
        Ok(SaConfig {
            direction,
            spi: key.index.get().into(),
            source: Some(source.addr),
            destination: destination.addr,
            mark: Mark::default(),
            mode: Mode::Tunnel,
            algorithm: key.algorithm,
            keys,
            esn: true,
            replay_window: REPLAY_WINDOW,
            nat_traversal: None,
            outer: OuterHeader::default(),
            lifetime: Lifetime {
                hard_time,
                ..Lifetime::default()
            },
            inner: Vec::new(),
            reqid: 0,
        })
    };
    Ok(PairSas {
        outbound: config(Direction::Outbound, local, remote)?,
        inbound: config(Direction::Inbound, remote, local)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse_key_file;
    use super::*;

    #[test]
    fn both_nodes_derive_the_same_keys() {
        let keys =
            parse_key_file("3 rfc4106(gcm(aes)) 000102030405060708090a0b0c0d0e0f10111213 128").unwrap();
        let a = End {
            addr: "10.0.0.1".parse().unwrap(),
            boot_id: "11111111-1111-1111-1111-111111111111",
        };
        let b = End {
            addr: "10.0.0.2".parse().unwrap(),
            boot_id: "22222222-2222-2222-2222-222222222222",
        };
        let (at_a, at_b) = (
            pair_sas(&keys[0], a, b, None).unwrap(),
            pair_sas(&keys[0], b, a, None).unwrap(),
        );
        let print = |config: &SaConfig| {
            (
                config.keys.fingerprint(),
                config.spi,
                config.source,
                config.destination,
            )
        };
        assert_eq!(print(&at_a.outbound), print(&at_b.inbound));
        assert_eq!(print(&at_a.inbound), print(&at_b.outbound));
        assert_ne!(at_a.outbound.keys.fingerprint(), at_a.inbound.keys.fingerprint());
        // The vector of the specification: 16 bytes of key, 4 of salt.
        assert_eq!(at_a.outbound.keys.salt(), [0x9d, 0x95, 0x10, 0x50]);
        assert_eq!(at_a.outbound.keys.cipher.expose()[..4], [0x97, 0x23, 0x27, 0xa2]);
    }
}
