//! A reload: reads everything again and applies it while clients stay, in an order that
//! lets each step be undone.

use super::open_files;
use super::serve_error::ServeError;
use super::{Life, choose_pools, set_reach, warn, warn_of_no_keys};
use super::{host, notify};
use crate::config::serve::request::ServeRequest;
use crate::process::message::say;
use crate::server::address::pool::Pools;
use crate::server::login::rules::Rules;
use crate::server::report::audit::event::Event;

impl Life {
    /// Applies changed settings; if that fails, all settings stay as they were.
    pub(super) async fn reload(&mut self, request: &ServeRequest) {
        notify::reloading();
        match self.take_up(request).await {
            Ok(()) => {
                let listen = self.listeners.addresses();
                self.watched.reloaded(listen.clone());
                self.audit.record(Event::ServerReloaded { listen });
            }
            Err(error) => say(format_args!(
                "sshvpn: nothing was reloaded, the earlier settings stay in force: {error}"
            )),
        }
        notify::ready(&self.status_line());
    }

    async fn take_up(&mut self, request: &ServeRequest) -> Result<(), ServeError> {
        let (rules, warnings) = Rules::load(request)?;
        let settings = &rules.settings;
        let facts = host::prepare().await?;
        let pools = choose_pools(&rules, Some(&self.pools), &facts)?;
        let overlaps = pools.overlaps(&facts, settings.network.bridge.as_ref());
        // Closing sockets comes last: a port below 1024 might not be opened again.
        let opened = self.listeners.open(&settings.listen)?;
        if let Err(error) = self.change_host(&rules, &pools).await {
            self.put_back().await;
            return Err(error);
        }
        self.listeners.take(opened);
        self.audit.reopen(&settings.audit);
        let login = open_files::fitting(&settings.login);
        self.server.admission.replace(&login);
        self.server.registry.set_limits(&settings.limits);
        set_reach(&self.server.reach, &pools);
        let before = self.server.rules();
        let metrics = settings.metrics != before.settings.metrics
            || settings.metrics_names != before.settings.metrics_names;
        self.pools = pools;
        self.server.replace_rules(rules);
        if metrics {
            // The old listener closes first: the new address may differ only in its port.
            if let Some(old) = self.metrics.take() {
                old.stop().await;
            }
            match self.start_metrics().await {
                Ok(metrics) => self.metrics = metrics,
                Err(error) => say(format_args!("warning: the metrics are off: {error}")),
            }
        }
        warn(&warnings);
        warn(&overlaps);
        warn_of_no_keys(&self.server.rules());
        Ok(())
    }

    async fn change_host(&mut self, rules: &Rules, pools: &Pools) -> Result<(), ServeError> {
        self.host.reload(&rules.settings, pools).await?;
        let leases = &self.server.leases;
        Ok(leases.reload(pools.clone(), rules.fixed_addresses())?)
    }

    /// Restores the settings after a reload that failed half way.
    async fn put_back(&mut self) {
        let (rules, pools) = (self.server.rules(), self.pools.clone());
        if let Err(error) = self.change_host(&rules, &pools).await {
            say(format_args!(
                "warning: not all earlier settings are restored: {error}"
            ));
        }
    }
}
