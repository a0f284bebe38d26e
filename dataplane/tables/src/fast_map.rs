//! The persistent hash map of what workers look up.

use imbl::shared_ptr::DefaultSharedPtr;
use rustc_hash::FxBuildHasher;

/// A map of which a copy costs nothing. The hash is fast and not secret: keys come from the control plane only.
pub(crate) type FastMap<K, V> = imbl::GenericHashMap<K, V, FxBuildHasher, DefaultSharedPtr>;
