//! Lists of algorithms in ssh_config(5): names and patterns, or with a leading `+`, `-` or `^` a
//! change of the default list.

use crate::config::ssh::defaults::SIGNATURE_ALGORITHMS;
use crate::config::ssh::pattern::{matches_list, matches_pattern};

const WILDCARDS: [char; 2] = ['*', '?'];

/// The list from `value` of `key` and the default list. `None` if it has a pattern although `key`
/// accepts only names.
pub(crate) fn assemble(key: &str, value: &str, default: &str) -> Option<String> {
    let takes_names_only = matches!(key, "ciphers" | "macs" | "kexalgorithms");
    if takes_names_only && !value.starts_with('-') && value.contains(WILDCARDS) {
        return None;
    }
    let default = names(default);
    let list: Vec<&str> = match value.split_at_checked(1) {
        Some(("-", removed)) => default
            .filter(|name| !matches_list(name, removed))
            .collect(),
        Some(("+", added)) => default.chain(expand(added)).collect(),
        Some(("^", first)) => expand(first).chain(default).collect(),
        _ => expand(value).collect(),
    };
    let mut once: Vec<&str> = Vec::with_capacity(list.len());
    for name in list {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    Some(once.join(","))
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|name| !name.is_empty())
}

/// The names in `list`, with each pattern replaced by the matching names.
fn expand(list: &str) -> impl Iterator<Item = &str> {
    names(list).flat_map(|name| {
        if name.contains(WILDCARDS) {
            let matching = SIGNATURE_ALGORITHMS.into_iter();
            let matching = matching.filter(|known| matches_pattern(known, name));
            matching.collect()
        } else {
            vec![name]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_to_the_default() {
        let list = |value| assemble("ciphers", value, "a-ctr,b-gcm,c-ctr");
        assert_eq!(list("x,y,x").as_deref(), Some("x,y"));
        assert_eq!(list("-*-ctr").as_deref(), Some("b-gcm"));
        assert_eq!(list("-c-ctr,zz").as_deref(), Some("a-ctr,b-gcm"));
        assert_eq!(list("+b-gcm,x").as_deref(), Some("a-ctr,b-gcm,c-ctr,x"));
        assert_eq!(list("^c-ctr").as_deref(), Some("c-ctr,a-ctr,b-gcm"));
        assert_eq!(list("-*").as_deref(), Some(""));
        assert_eq!(list("*-ctr"), None);
    }

    #[test]
    fn patterns_stand_for_keys_that_are_known() {
        let list = |value| assemble("hostkeyalgorithms", value, "x-ed,y-rsa");
        assert_eq!(
            list("ssh-rsa*,x").as_deref(),
            Some("ssh-rsa,ssh-rsa-cert-v01@openssh.com,x")
        );
        assert_eq!(
            list("+rsa-sha2-25?").as_deref(),
            Some("x-ed,y-rsa,rsa-sha2-256")
        );
        assert_eq!(list("zz*").as_deref(), Some(""));
    }
}
