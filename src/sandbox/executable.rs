//! The files that the kernel runs for a program: the program itself and its interpreters, a
//! script's or the dynamic linker (execve(2)).

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A script's interpreter may be a script, up to the kernel's limit.
const DEPTH: usize = 4;
/// The number of bytes to read of a file: its headers and the name of its interpreter.
const HEAD: u64 = 64 * 1024;

/// `program` and its interpreters.
pub(super) fn with_interpreters(program: &Path) -> Vec<PathBuf> {
    let mut files = vec![program.to_owned()];
    for _ in 0..DEPTH {
        let next = files.last().and_then(|file| interpreter(file));
        match next {
            Some(next) if !files.contains(&next) => files.push(next),
            _ => break,
        }
    }
    files
}

fn interpreter(file: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    let file = File::open(file).ok()?;
    file.take(HEAD).read_to_end(&mut head).ok()?;
    of_script(&head).or_else(|| of_elf(&head))
}

/// `#!INTERPRETER [ARGUMENT]`.
fn of_script(head: &[u8]) -> Option<PathBuf> {
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let mut words = line.split(|byte| byte.is_ascii_whitespace());
    let word = words.find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

/// The PT_INTERP segment of a 64-bit program with this byte order (elf(5)).
fn of_elf(head: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: u32 = 3;
    head.strip_prefix(b"\x7fELF\x02")?;
    let segments = usize::try_from(u64::from_ne_bytes(bytes(head, 32)?)).ok()?;
    let size = usize::from(u16::from_ne_bytes(bytes(head, 54)?));
    let count = usize::from(u16::from_ne_bytes(bytes(head, 56)?));
    for index in 0..count {
        let segment = segments.checked_add(index.checked_mul(size)?)?;
        if u32::from_ne_bytes(bytes(head, segment)?) != PT_INTERP {
            continue;
        }
        let at = |offset| {
            let value = u64::from_ne_bytes(bytes(head, segment.checked_add(offset)?)?);
            usize::try_from(value).ok()
        };
        let (start, length) = (at(8)?, at(32)?);
        let name = head.get(start..start.checked_add(length)?)?;
        let name = name.split(|byte| *byte == 0).next()?;
        return Some(PathBuf::from(OsStr::from_bytes(name)));
    }
    None
}

fn bytes<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_brings_its_dynamic_linker() {
        let files = with_interpreters(Path::new("/bin/sh"));
        assert!(files.len() == 2 && files[1].is_absolute(), "{files:?}");
        assert!(files[1].exists(), "{files:?}");
    }

    #[test]
    fn a_script_brings_its_interpreter_and_that_ones() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        std::fs::write(&script, "#! /bin/sh -e\necho\n").unwrap();
        let files = with_interpreters(&script);
        assert!(
            files.len() == 3 && files[1] == Path::new("/bin/sh"),
            "{files:?}"
        );
    }

    #[test]
    fn nonsense_brings_nothing_more() {
        let mut header = b"\x7fELF\x02".to_vec();
        header.resize(64, 0xff);
        for text in [&b""[..], b"#!", b"#!   \n", b"\x7fELF", &header] {
            assert_eq!(of_script(text).or_else(|| of_elf(text)), None);
        }
    }
}
