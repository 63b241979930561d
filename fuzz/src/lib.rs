//! Common parts of the fuzz targets.
//!
//! A target is a file `tests/NAME.rs` with one [`target!`], and seeds in
//! `tests/__fuzz__/NAME/corpus/`; it needs no other entry. `cargo test` runs each target on its
//! seeds and then on random bytes for [`TEST_TIME`]; `scripts/fuzz NAME` runs libFuzzer.

pub mod packets;
mod source;

use std::time::Duration;

pub use source::Source;

/// The duration of a target as a test.
pub const TEST_TIME: Duration = Duration::from_secs(3);

/// More runs than fit into [`TEST_TIME`], so that the time ends a test.
pub const TEST_RUNS: usize = 100_000_000;

/// The longest random input of a test, in bytes.
pub const TEST_INPUT: usize = 2048;

/// Makes a fuzz target `NAME` of a function of bytes, which panics on a fault:
/// `target!(NAME, FUNCTION);` in `tests/NAME.rs`.
#[macro_export]
macro_rules! target {
    ($name:ident, $function:path) => {
        #[test]
        fn $name() {
            bolero::check!()
                .with_test_time($crate::TEST_TIME)
                .with_iterations($crate::TEST_RUNS)
                .with_max_len($crate::TEST_INPUT)
                .for_each(|input: &[u8]| $function(input));
        }
    };
}
