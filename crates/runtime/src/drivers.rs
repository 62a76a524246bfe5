//! Several drivers as one: each sandbox runs on the one that its specification names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kiln_types::SandboxId;

use crate::runtime::{RootSource, Running, Runtime, RuntimeError, SandboxSpec};

/// The drivers of a daemon. As a driver, it has the name of the default one.
#[derive(Debug)]
pub struct Drivers {
    /// The default one first.
    all: Vec<Arc<dyn Runtime>>,
    /// Which driver a sandbox was started or found by.
    homes: Mutex<HashMap<SandboxId, Arc<dyn Runtime>>>,
}

impl Drivers {
    /// The drivers of `all`, of which the one called `default` runs what names none.
    ///
    /// # Errors
    /// [`RuntimeError::Driver`] when none has that name.
    pub fn new(default: &str, mut all: Vec<Arc<dyn Runtime>>) -> Result<Arc<Self>, RuntimeError> {
        let at = all.iter().position(|driver| driver.name() == default);
        let at = at.ok_or_else(|| unknown(default, &all))?;
        all.swap(0, at);
        Ok(Arc::new(Self { all, homes: Mutex::default() }))
    }

    /// The names of all, the default one first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|driver| driver.name())
    }

    fn of(&self, spec: &SandboxSpec) -> Result<Arc<dyn Runtime>, RuntimeError> {
        let found = match &spec.driver {
            None => self.all.first(),
            Some(name) => self.all.iter().find(|driver| driver.name() == name),
        };
        found.cloned().ok_or_else(|| unknown(spec.driver.as_deref().unwrap_or(""), &self.all))
    }

    /// The driver of a sandbox that was started or found.
    fn home(&self, id: SandboxId) -> Option<Arc<dyn Runtime>> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<dyn Runtime>>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(driver: &str, all: &[Arc<dyn Runtime>]) -> RuntimeError {
    let names: Vec<&str> = all.iter().map(|driver| driver.name()).collect();
    RuntimeError::Driver {
        driver: driver.chars().take(80).collect(),
        problem: format!("is none that this daemon has; there are {}", names.join(", ")),
    }
}

#[async_trait]
impl Runtime for Drivers {
    fn name(&self) -> &str {
        self.all.first().map_or("", |driver| driver.name())
    }

    async fn create(
        &self,
        spec: SandboxSpec,
        root: Box<dyn RootSource>,
    ) -> Result<Running, RuntimeError> {
        let driver = self.of(&spec)?;
        let id = spec.id;
        if let Some(home) = self.home(id)
            && home.name() != driver.name()
        {
            // What an earlier life on another driver may have left.
            home.stop(id, Duration::ZERO).await?;
        }
        // Before it runs: whoever stops it meanwhile has to find the driver.
        self.lock().insert(id, Arc::clone(&driver));
        let created = driver.create(spec, root).await;
        if !matches!(created, Ok(_) | Err(RuntimeError::Busy { .. })) {
            self.lock().remove(&id);
        }
        created
    }

    async fn adopt(&self, spec: SandboxSpec) -> Result<Option<Running>, RuntimeError> {
        let driver = self.of(&spec)?;
        let found = driver.adopt(spec.clone()).await?;
        if found.is_some() {
            self.lock().insert(spec.id, driver);
        }
        Ok(found)
    }

    async fn stop(&self, id: SandboxId, grace: Duration) -> Result<(), RuntimeError> {
        match self.home(id) {
            Some(driver) => {
                driver.stop(id, grace).await?;
                self.lock().remove(&id);
            }
            // Of an earlier life of the daemon, or of nobody.
            None => {
                for driver in &self.all {
                    driver.stop(id, grace).await?;
                }
            }
        }
        Ok(())
    }

    async fn freeze(&self, id: SandboxId) -> Result<(), RuntimeError> {
        self.home(id).ok_or(RuntimeError::NotRunning { id })?.freeze(id).await
    }

    async fn thaw(&self, id: SandboxId) -> Result<(), RuntimeError> {
        self.home(id).ok_or(RuntimeError::NotRunning { id })?.thaw(id).await
    }

    async fn sweep(&self, alive: &[SandboxId]) -> Result<(), RuntimeError> {
        for driver in &self.all {
            driver.sweep(alive).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Limits;

    /// Says by its errors who was asked.
    #[derive(Debug)]
    struct Named(&'static str);

    #[async_trait]
    impl Runtime for Named {
        fn name(&self) -> &str {
            self.0
        }

        async fn create(
            &self,
            _: SandboxSpec,
            _: Box<dyn RootSource>,
        ) -> Result<Running, RuntimeError> {
            Err(RuntimeError::Driver { driver: self.0.into(), problem: "was asked".into() })
        }

        async fn adopt(&self, _: SandboxSpec) -> Result<Option<Running>, RuntimeError> {
            Ok(None)
        }

        async fn stop(&self, id: SandboxId, _: Duration) -> Result<(), RuntimeError> {
            if self.0 == "stubborn" { Err(RuntimeError::NotRunning { id }) } else { Ok(()) }
        }

        async fn freeze(&self, id: SandboxId) -> Result<(), RuntimeError> {
            Err(RuntimeError::NotRunning { id })
        }

        async fn thaw(&self, _: SandboxId) -> Result<(), RuntimeError> {
            Ok(())
        }

        async fn sweep(&self, _: &[SandboxId]) -> Result<(), RuntimeError> {
            Ok(())
        }
    }

    fn spec(driver: Option<&str>) -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::new(),
            hostname: "x".into(),
            env: Vec::new(),
            limits: Limits { vcpu: 1, memory: 1, pids: 1 },
            slot: None,
            network: false,
            driver: driver.map(str::to_owned),
        }
    }

    fn no_root() -> Box<dyn RootSource> {
        Box::new(|_: crate::Userns<'_>| Err("no root".into()))
    }

    fn drivers(default: &str) -> Result<Arc<Drivers>, RuntimeError> {
        Drivers::new(default, vec![Arc::new(Named("one")), Arc::new(Named("two"))])
    }

    #[tokio::test]
    async fn a_sandbox_runs_on_the_driver_that_it_names() {
        let drivers = drivers("two").unwrap();
        assert_eq!(drivers.name(), "two");
        assert_eq!(drivers.names().count(), 2);
        for (named, asked) in [(None, "two"), (Some("one"), "one"), (Some("two"), "two")] {
            let error = drivers.create(spec(named), no_root()).await.unwrap_err();
            assert_eq!(error.to_string(), format!("driver `{asked}` was asked"), "{named:?}");
        }
        let error = drivers.create(spec(Some("three")), no_root()).await.unwrap_err();
        assert!(error.to_string().contains("there are two, one"), "{error}");
        assert!(matches!(self::drivers("none"), Err(RuntimeError::Driver { .. })));
    }

    #[tokio::test]
    async fn whoever_may_have_it_is_asked_to_stop_it() {
        let all: Vec<Arc<dyn Runtime>> = vec![Arc::new(Named("one")), Arc::new(Named("stubborn"))];
        let drivers = Drivers::new("one", all).unwrap();
        let unknown = drivers.stop(SandboxId::new(), Duration::ZERO).await;
        assert!(unknown.is_err(), "the second was not asked");
        let known = spec(Some("one"));
        let id = known.id;
        drivers.lock().insert(id, Arc::new(Named("one")));
        drivers.stop(id, Duration::ZERO).await.expect("only the one that has it is asked");
        drivers.create(known, no_root()).await.unwrap_err();
        assert!(drivers.home(id).is_none(), "what did not start is remembered");
    }
}
