//! A fresh store for each check.

use overstory_runtime::Home;
use overstory_store::{EngineSide, StoreConfig, StoreKind, WebSide, open_engines, open_web};
use overstory_testkit::mongo;
use tempfile::TempDir;

pub(crate) struct Fixture {
    pub(crate) config: StoreConfig,
    home: Home,
    _dir: TempDir,
}

impl Fixture {
    pub(crate) async fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::embedded(dir.path().join("store"));
        Self { config, home: Home::at(dir.path()), _dir: dir }
    }

    pub(crate) async fn mongodb() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = tokio::task::spawn_blocking(mongo::shared).await.unwrap().unwrap();
        Self { config, home: Home::at(dir.path()), _dir: dir }
    }

    /// How many random histories a check goes through: the stand-in for a server is slow.
    pub(crate) fn histories(&self) -> usize {
        match self.config.kind {
            StoreKind::Embedded { .. } => 60,
            StoreKind::MongoDb { .. } => 6,
        }
    }

    pub(crate) async fn engines(&self) -> EngineSide {
        open_engines(&self.config, &self.home).await.unwrap()
    }

    pub(crate) async fn web(&self) -> WebSide {
        open_web(&self.config, &self.home).await.unwrap()
    }
}
