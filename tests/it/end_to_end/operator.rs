//! What an operator asks for by `rootstock` is carried out by the controller.

use std::time::Duration;

use clap::Parser as _;
use jiff::Timestamp;
use rootstock_ctl::{Args, Error, Outcome, Screen, Style};
use rootstock_playground::seed::landscape::Shoot;
use rootstock_playground::seed::world::World;

use super::fixture::{Fixture, LIMIT, ONE, Plan};

/// What a person's line prints, and how it ends.
async fn rootstock(world: &World, line: &str) -> (String, Result<Outcome, Error>) {
    let kubeconfig = world.kubeconfigs()["seed"].display().to_string();
    let line = format!("rootstock --kubeconfig {kubeconfig} {line} -n {ONE}");
    let args = Args::parse_from(line.split_whitespace());
    let client = rootstock_ctl::client(&args.connection).await.unwrap();
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, Style::default());
    // A wait has a bound of its own, and says more.
    let limit = LIMIT + Duration::from_secs(30);
    let run = rootstock_ctl::run(&args, &client, &mut screen, Timestamp::now);
    let ended = tokio::time::timeout(limit, run).await.unwrap();
    drop(screen);
    (String::from_utf8(out).unwrap(), ended)
}

/// Waits until the page of the runtime says this.
async fn until_said(world: &Fixture, words: &str) -> String {
    world
        .until(&format!("{words:?} is said"), async |world: &World| {
            let (said, _) = rootstock(world, "status gvisor-a").await;
            if said.contains(words) { Ok(said) } else { Err(said) }
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_taken_up_and_taken_back() {
    let shoot = Shoot::new("garden", "one").pool("a", &["gvisor"], 2);
    let world = Plan::new(vec![shoot]).tiny(&["gvisor"]).await.start().await;
    // Wherever its rollout is: it may be paused at any time.
    until_said(&world, "of 2 ready").await;
    until_said(&world, "rootstock rollout pause gvisor-a").await;

    let (said, ended) = rootstock(&world, "rollout pause gvisor-a --wait=60").await;
    assert_eq!(ended.unwrap(), Outcome::Done, "{said}");
    let page = until_said(&world, "paused").await;
    assert!(page.contains("rootstock rollout resume gvisor-a"), "{page}");
    let (_, ended) = rootstock(&world, "rollout pause gvisor-a").await;
    assert!(matches!(ended, Err(Error::Pointless(_))), "{ended:?}");

    let (said, ended) = rootstock(&world, "rollout resume gvisor-a --wait=60").await;
    assert_eq!(ended.unwrap(), Outcome::Done, "{said}");
    until_said(&world, "rootstock rollout pause gvisor-a").await;
    world.stop().await;
}
