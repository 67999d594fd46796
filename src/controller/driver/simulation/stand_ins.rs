//! The stand-ins keep the contract that the real servers keep.

use std::{cell::RefCell, rc::Rc};

use super::{
    agent::{Agent, Bench},
    nomad::PARENT,
    on_runtime,
    world::World,
};
use crate::ambient::simulated;

#[path = "../../../../tests/it/contract/suite.rs"]
mod suite;

struct StandIn {
    world: Rc<RefCell<World>>,
    agent: Agent,
}

impl suite::Setting for StandIn {
    async fn wait(&self) {
        self.world.borrow_mut().pass(500);
    }

    async fn open(&self, allocation: &str) {
        self.agent.rooms.grants.issue(allocation, &[]).await.unwrap();
    }
}

async fn stand_in() -> StandIn {
    let bench = Bench::new().await;
    let world = Rc::new(RefCell::new(World::new(1, bench.marker(), &["A"])));
    simulated::set(Some(Rc::<RefCell<World>>::clone(&world)));
    StandIn { world, agent: bench.start().await }
}

#[test]
fn nomad_keeps_the_contract() {
    on_runtime(async {
        let setting = stand_in().await;
        suite::nomad(&setting.agent.rooms.nomad, PARENT, &setting).await;
        simulated::set(None);
    });
}

#[test]
fn vault_keeps_the_contract() {
    on_runtime(async {
        let setting = stand_in().await;
        suite::vault(&Bench::new().await.vault, "accessor", "runner-A").await;
        drop(setting);
        simulated::set(None);
    });
}
