//! Secret texts that must not stay in memory or reach a log: passwords, passphrases.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// Bytes of stack that are overwritten after work on a secret: more than decrypting a key
/// or signing uses.
const STACK: usize = 128 * 1024;

/// Does `work`, then overwrites the stack below. Moving a private key leaves a copy in its
/// old place, which the key's own wiping does not reach; therefore `work` must also return
/// a key only on the heap.
pub fn wiping_stack<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn overwrite() {
        let mut below = [0u8; STACK];
        below.zeroize();
    }
    #[inline(never)]
    fn run<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    let result = run(work);
    overwrite();
    result
}

/// A secret text; its memory is overwritten when it is dropped.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` over without a copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself. The caller must wipe what it makes from it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_it() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
