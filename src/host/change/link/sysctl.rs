//! Sets a sysctl that belongs to the interface.

use serde::{Deserialize, Serialize};

use crate::host::change::Entry;
use crate::host::change::kind::{LinkChange, LinkEntry, Outcome, put_back};
use crate::host::change::protection::{self, Ipv6};
use crate::host::change::sysctl::{SysctlError, SysctlKey};
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::LinkFacts;

/// The sysctl and its new value.
pub(in crate::host) struct Wanted<'a> {
    pub key: &'a SysctlKey,
    pub value: &'a str,
}

/// A sysctl was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The sysctl.
    pub key: SysctlKey,
    /// The value before.
    pub before: String,
    /// The new value.
    pub set: String,
}

impl LinkChange for Wanted<'_> {
    async fn plan(&self, _: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError> {
        require_own(self.key, link)?;
        let before = self.key.read()?;
        Ok((before != self.value).then(|| {
            Entry::Sysctl(Made {
                key: self.key.clone(),
                before,
                set: self.value.to_owned(),
            })
        }))
    }

    async fn make(&self, _: &Netlink, _: &LinkFacts) -> Result<(), NetError> {
        Ok(self.key.write(self.value)?)
    }

    fn is_on_device(&self) -> bool {
        true
    }
}

impl LinkEntry for Made {
    async fn undo(&self, _: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError> {
        require_own(&self.key, link)?;
        let now = match self.key.read() {
            Err(SysctlError::Absent { .. }) => return Ok(Outcome::Gone),
            other => other?,
        };
        let restore = async { Ok(self.key.write(&self.before)?) };
        put_back(&now, &self.before, &self.set, restore).await
    }

    fn describe(&self, _: &str) -> String {
        format!("{} = {}", self.key, self.set)
    }

    /// Settings that refuse configuration by the peer are; another one might be weakened.
    fn is_undone_on_device(&self, interface: &str) -> bool {
        let settings = protection::settings(interface, Ipv6::Off);
        settings.iter().any(|(protected, _)| *protected == self.key)
    }
}

fn require_own(key: &SysctlKey, link: &LinkFacts) -> Result<(), NetError> {
    match key.belongs_to(&link.name) {
        true => Ok(()),
        false => Err(NetError::ForeignSysctl {
            key: key.to_string(),
            interface: link.name.clone(),
        }),
    }
}
