//! What the fuzz targets share.
//!
//! A target is a file `tests/NAME.rs` with one [`target!`], and seeds in
//! `tests/__fuzz__/NAME/corpus/`; nothing else has to know of it. `cargo test`
//! runs each on its seeds and then on random bytes for [`TEST_TIME`];
//! `scripts/fuzz NAME` lets libFuzzer search.

pub mod packets;
mod source;

use std::time::Duration;

pub use source::Source;

/// How long a target runs as a test.
pub const TEST_TIME: Duration = Duration::from_secs(3);

/// More runs than go into [`TEST_TIME`], which is to be what ends a test.
pub const TEST_RUNS: usize = 100_000_000;

/// The longest random input of a test, in bytes.
pub const TEST_INPUT: usize = 2048;

/// Makes a fuzz target `NAME` of a function of bytes, which panics when it finds
/// something wrong: `target!(NAME, FUNCTION);` in `tests/NAME.rs`.
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
