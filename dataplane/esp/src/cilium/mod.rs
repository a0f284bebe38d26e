//! Cilium's transparent encryption with IPsec, as far as it is data: keys, which of them, and whose (specification of the
//! datapath, sections 1.9 and 2.9).

mod derive;
mod key_file;
mod key_index;
mod pair;

pub use derive::{BOOT_ID_LEN, DeriveError, End, derive};
pub use key_file::{CiliumKey, KeyFileError, KeySecrets, parse_key_file};
pub use key_index::{KeyIndex, KeyIndexError, effective};
pub use pair::{PairSas, REPLAY_WINDOW, pair_sas};
