//! Reads the output of `nft -j list ruleset` (libnftables-json(5)), one object at a time, so that
//! a listing that was cut off is read as far as it goes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::packet::{Addresses, Test};
use super::rules::{Action, Chain, Policy, Rule, Step, Table, is_own};
use super::{NftFamily, Ruleset};
use crate::types::family::Family;

/// Chains and rules that are kept, at most.
const MOST: usize = 100_000;

#[derive(Deserialize)]
struct Object {
    chain: Option<ChainObject>,
    rule: Option<RuleObject>,
}

#[derive(Deserialize)]
struct ChainObject {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct RuleObject {
    family: String,
    table: String,
    chain: String,
    comment: Option<String>,
    #[serde(default)]
    expr: Vec<Value>,
}

/// The tables of IP packets; `None` if this is no listing.
pub(super) fn parse(json: &str) -> Option<Vec<Table>> {
    let (_, mut rest) = json.split_once("\"nftables\"")?.1.split_once('[')?;
    let mut tables = BTreeMap::new();
    let mut left = MOST;
    // The table of the last object is incomplete if the listing was cut off.
    let (mut last, mut whole) = (None, false);
    while left > 0 {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
        if rest.starts_with(']') {
            whole = true;
            break;
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let Some(Ok(value)) = values.next() else {
            break;
        };
        rest = rest.get(values.byte_offset()..)?;
        if let Ok(object) = serde_json::from_value(value) {
            last = add(&mut tables, object, &mut left).or(last);
        }
    }
    if let (false, Some(last)) = (whole, &last) {
        tables.remove(last);
    }
    Some(tables.into_values().collect())
}

type Key = (NftFamily, String);

fn add(tables: &mut BTreeMap<Key, Table>, object: Object, left: &mut usize) -> Option<Key> {
    *left = left.checked_sub(1)?;
    if let Some(found) = object.chain {
        let (key, chain) = chain(tables, &found.family, found.table, found.name)?;
        let policy = match found.policy.as_deref() {
            Some("drop") => Policy::Drop,
            _ => Policy::Accept,
        };
        chain.base = (found.hook.as_deref() == Some("forward")).then_some(policy);
        return Some(key);
    }
    let found = object.rule?;
    let (key, chain) = chain(tables, &found.family, found.table, found.chain)?;
    if !found.comment.as_deref().is_some_and(is_own) {
        chain.rules.push(rule(&found.expr));
    }
    Some(key)
}

fn chain<'a>(
    tables: &'a mut BTreeMap<Key, Table>,
    family: &str,
    table: String,
    chain: String,
) -> Option<(Key, &'a mut Chain)> {
    let family = NftFamily::named(family)?;
    let key = (family, table);
    let table = tables.entry(key.clone()).or_insert_with(|| Table {
        ruleset: Ruleset::Nft(family),
        name: key.1.clone(),
        chains: BTreeMap::new(),
    });
    Some((key, table.chains.entry(chain).or_default()))
}

fn rule(statements: &[Value]) -> Rule {
    let mut steps = Vec::new();
    for statement in statements {
        let Some((key, value)) = statement
            .as_object()
            .and_then(|object| object.iter().next())
        else {
            steps.push(Step::Test(Test::Unknown));
            continue;
        };
        match key.as_str() {
            "match" => steps.extend(tests(value).map(Step::Test)),
            "vmap" => steps.extend(verdict_map(value)),
            "counter" | "log" | "mangle" | "notrack" | "flow" | "dup" | "ct helper" | "set"
            | "map" => {}
            "xt" => steps.push(extension(value)),
            _ => steps.push(match action(key, value) {
                Some(action) => Step::Do(action),
                None => Step::Test(Test::Unknown),
            }),
        }
    }
    steps
}

fn action(key: &str, value: &Value) -> Option<Action> {
    let target = || Some(value.get("target")?.as_str()?.to_owned());
    match key {
        "accept" => Some(Action::Accept),
        "drop" | "reject" => Some(Action::Drop),
        "jump" => target().map(Action::Jump),
        "goto" => target().map(Action::Goto),
        "return" => Some(Action::Return),
        "continue" => Some(Action::Continue),
        _ => None,
    }
}

/// A match or a target of iptables-nft.
fn extension(value: &Value) -> Step {
    let text = |key| value.get(key).and_then(Value::as_str);
    match (text("type"), text("name")) {
        (Some("target"), Some("REJECT" | "DROP")) => Step::Do(Action::Drop),
        (Some("target"), _) | (Some("match"), Some("comment")) => Step::Do(Action::Continue),
        _ => Step::Test(Test::Unknown),
    }
}

fn verdict_map(value: &Value) -> Option<Step> {
    let key = value.get("key")?;
    let elements = value.get("data")?.get("set")?.as_array()?;
    let one = |element: &Value| {
        let (name, verdict) = element.get(1)?.as_object()?.iter().next()?;
        Some((compared(key, element.get(0)?), action(name, verdict)?))
    };
    Some(Step::Map(elements.iter().filter_map(one).collect()))
}

/// A match; one of a header matches packets with that header alone, also where it is negated.
fn tests(value: &Value) -> impl Iterator<Item = Test> {
    let family = value.get("left").and_then(|left| {
        match left.get("payload")?.get("protocol")?.as_str()? {
            "ip" | "icmp" => Some(Family::V4),
            "ip6" | "icmpv6" => Some(Family::V6),
            _ => None,
        }
    });
    family.map(Test::Family).into_iter().chain([test(value)])
}

fn test(value: &Value) -> Test {
    let (Some(left), Some(right)) = (value.get("left"), value.get("right")) else {
        return Test::Unknown;
    };
    match value.get("op").and_then(Value::as_str) {
        Some("==" | "in") => compared(left, right),
        Some("!=") => compared(left, right).negated(true),
        _ => Test::Unknown,
    }
}

/// Whether the packet's `left` is `right`, or one of the elements of `right`.
fn compared(left: &Value, right: &Value) -> Test {
    let Some((kind, of)) = left.as_object().and_then(|object| object.iter().next()) else {
        return Test::Unknown;
    };
    let key = |name| of.get(name).and_then(Value::as_str).unwrap_or_default();
    match (kind.as_str(), key("key")) {
        ("meta", "iif" | "iifname") => names(right).map_or(Test::Unknown, Test::In),
        ("meta", "oif" | "oifname") => names(right).map_or(Test::Unknown, Test::Out),
        ("meta", "nfproto") => match right.as_str() {
            Some("ipv4") => Test::Family(Family::V4),
            Some("ipv6") => Test::Family(Family::V6),
            _ => Test::Unknown,
        },
        ("ct", "state") => state(right),
        // A packet to a routed network has its own destination.
        ("ct", "status") if right.as_str() == Some("dnat") => Test::Never,
        ("payload", _) => payload(key("protocol"), key("field"), right),
        _ => Test::Unknown,
    }
}

/// The strings of a value: one, a list, or a set; `None` if some are of another form.
fn names(value: &Value) -> Option<Vec<String>> {
    let name = |value: &Value| match value.as_str() {
        Some(name) if !name.starts_with('@') => Some(name.to_owned()),
        _ => None,
    };
    elements(value).iter().map(name).collect()
}

fn state(value: &Value) -> Test {
    let Some(states) = names(value) else {
        return Test::Unknown;
    };
    let has = |state: &str| states.iter().any(|one| one == state);
    Test::State {
        new: has("new"),
        established: has("established"),
    }
}

fn payload(protocol: &str, field: &str, right: &Value) -> Test {
    match (protocol, field) {
        ("ip" | "ip6", "saddr") => Test::Source(addresses(right)),
        ("ip" | "ip6", "daddr") => Test::Destination(addresses(right)),
        _ => Test::Unknown,
    }
}

fn addresses(value: &Value) -> Addresses {
    let mut addresses = Addresses::default();
    for element in elements(value) {
        match (element.as_str(), element.get("prefix")) {
            (Some(text), _) => addresses.add(text),
            (None, Some(prefix)) => {
                let address = prefix.get("addr").and_then(Value::as_str);
                let length = prefix.get("len").and_then(Value::as_u64);
                addresses.add_prefix(address.unwrap_or_default(), length);
            }
            _ => addresses.more = true,
        }
    }
    addresses
}

/// The elements of a list or a set; else the value alone.
fn elements(value: &Value) -> &[Value] {
    match value.get("set").unwrap_or(value) {
        Value::Array(elements) => elements,
        one => std::slice::from_ref(one),
    }
}
