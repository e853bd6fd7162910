//! The supervised services, as far as the API shows and steers them.

use std::path::PathBuf;

use async_trait::async_trait;
use overstory_runtime::program::chain;
use overstory_supervisor::services::{ActionOutcome, Done, Services};
use serde::Serialize;
use utoipa::ToSchema;

/// The state of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProcessView {
    /// The service's name, or `service:process` when it has several processes.
    pub name: String,
    /// The service.
    pub service: String,
    /// supervisord's word (`RUNNING`, `STOPPED`, ...) or `CRASHLOOP`.
    pub state: String,
    /// The process id.
    pub pid: Option<i32>,
    /// Seconds since it was started.
    pub uptime_s: Option<u64>,
    /// How often it ended by itself in the last ten minutes.
    pub restarts: u64,
    /// What there is to add, such as why it could not be started.
    pub detail: String,
}

/// What to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Stop and start it.
    Restart,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceError {
    /// There is no service of that name.
    Unknown,
    /// supervisord does not answer.
    Away(String),
    /// It was tried and failed: what the operator should know.
    Failed(String),
}

/// Steers the supervised services.
#[async_trait]
pub trait ServiceControl: Send + Sync {
    /// The state of every process of every service.
    async fn list(&self) -> Result<Vec<ProcessView>, ServiceError>;

    /// The state of the processes that `name` means: a service, or one of its processes.
    async fn status(&self, name: &str) -> Result<Vec<ProcessView>, ServiceError>;

    /// Does it, and waits for the end of it.
    async fn act(&self, name: &str, action: Action) -> Result<(), ServiceError>;

    /// Sends a process its stop signal and does not wait.
    async fn signal_stop(&self, name: &str) -> Result<(), ServiceError>;
}

/// The services of the prefix that this web server belongs to.
#[derive(Debug)]
pub struct PrefixServices {
    root: PathBuf,
}

impl PrefixServices {
    /// Looks after the services of the prefix `root`.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The services as they are configured at this moment, if supervisord answers. It is never started from here: it
    /// would become a child of one of its own programs.
    async fn open(&self) -> Result<Services, ServiceError> {
        let root = self.root.clone();
        let services = tokio::task::spawn_blocking(move || Services::open(root))
            .await
            .map_err(|error| ServiceError::Away(error.to_string()))?;
        services.supervisor().state().await.map_err(|error| ServiceError::Away(chain(&error)))?;
        Ok(services)
    }
}

#[async_trait]
impl ServiceControl for PrefixServices {
    async fn list(&self) -> Result<Vec<ProcessView>, ServiceError> {
        let services = self.open().await?;
        let statuses = services.list().await.map_err(|error| ServiceError::Away(chain(&error)))?;
        Ok(statuses.into_iter().map(view).collect())
    }

    async fn status(&self, name: &str) -> Result<Vec<ProcessView>, ServiceError> {
        let services = self.open().await?;
        let targets = targets(&services, name)?;
        let statuses = services.status(&targets).await.map_err(|error| ServiceError::Away(chain(&error)))?;
        Ok(statuses.into_iter().map(view).collect())
    }

    async fn act(&self, name: &str, action: Action) -> Result<(), ServiceError> {
        let services = self.open().await?;
        let targets = targets(&services, name)?;
        let outcomes = match action {
            Action::Start => services.start(&targets).await,
            Action::Stop => services.stop(&targets).await,
            Action::Restart => services.restart(&targets).await,
        };
        let outcomes = outcomes.map_err(|error| ServiceError::Away(chain(&error)))?;
        let failures: Vec<_> = outcomes.iter().filter_map(failure).collect();
        if failures.is_empty() { Ok(()) } else { Err(ServiceError::Failed(failures.join("; "))) }
    }

    async fn signal_stop(&self, name: &str) -> Result<(), ServiceError> {
        let services = self.open().await?;
        for target in targets(&services, name)? {
            for process in target.processes {
                let stopped = services.supervisor().stop(&process.name).await;
                stopped.map_err(|error| ServiceError::Failed(chain(&error)))?;
            }
        }
        Ok(())
    }
}

fn targets<'a>(
    services: &'a Services,
    name: &str,
) -> Result<Vec<overstory_supervisor::programs::Target<'a>>, ServiceError> {
    // A wildcard would start or stop more than the caller may think.
    let targets = if name.contains('*') { Vec::new() } else { services.catalogue().resolve(name) };
    if targets.is_empty() { Err(ServiceError::Unknown) } else { Ok(targets) }
}

fn view(status: overstory_supervisor::services::ProcessStatus) -> ProcessView {
    ProcessView {
        name: status.name.to_string(),
        service: status.service,
        state: status.state.as_str().to_owned(),
        pid: status.pid,
        uptime_s: status.uptime_s,
        restarts: u64::try_from(status.restarts).unwrap_or(u64::MAX),
        detail: status.detail,
    }
}

fn failure(outcome: &ActionOutcome) -> Option<String> {
    match &outcome.result {
        Ok(Done::Started | Done::AlreadyStarted | Done::Stopped | Done::AlreadyStopped) => None,
        Err(failure) => Some(format!("{} {}", outcome.name, failure.reason)),
    }
}
