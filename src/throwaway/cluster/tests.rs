//! Each test makes a real cluster; they say what it takes if there are no binaries.

use super::*;
use crate::throwaway::ClusterOptions;

async fn cluster() -> Cluster {
    Cluster::start(ClusterOptions::default()).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn it_answers_and_leaves_nothing_behind() {
    let cluster = cluster().await;
    let rows = cluster.psql("SELECT 1, NULL; SHOW max_connections").await.unwrap();
    assert_eq!(rows, [vec![Some("1".into()), None], vec![Some("60".into())]]);
    let (dir, pid) = (cluster.socket_dir().to_owned(), cluster.pid().unwrap());
    drop(cluster);
    assert!(!dir.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn clusters_of_one_template_are_independent() {
    let base = tempfile::tempdir().unwrap();
    let options = ClusterOptions { template: Some(base.path().to_owned()), ..Default::default() };
    let first = Cluster::start(options.clone()).await.unwrap();
    first.psql("CREATE DATABASE only_here").await.unwrap();
    let second = Cluster::start(options).await.unwrap();
    assert_eq!(first.admin_password(), second.admin_password());
    assert!(second.psql("SELECT 1 FROM pg_database WHERE datname = 'only_here'").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_kill_keeps_the_port_and_the_committed_rows() {
    let mut cluster = cluster().await;
    let port = cluster.port();
    cluster.psql("CREATE TABLE kept AS SELECT 7 AS x; CHECKPOINT").await.unwrap();
    cluster.kill_9().unwrap();
    assert!(cluster.psql("SELECT 1").await.is_err());
    cluster.start_again().await.unwrap();
    assert_eq!(cluster.port(), port);
    assert_eq!(cluster.psql("SELECT x FROM kept").await.unwrap(), [[Some("7".into())]]);
    cluster.restart().await.unwrap();
    assert_eq!(cluster.psql("SELECT x FROM kept").await.unwrap(), [[Some("7".into())]]);
}

#[tokio::test]
async fn a_frozen_cluster_answers_again_after_the_thaw() {
    let cluster = cluster().await;
    let client = cluster.admin("postgres").await.unwrap();
    cluster.freeze().unwrap();
    let mut query = Box::pin(client.simple_query("SELECT 1"));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut query).await.is_err());
    cluster.thaw().unwrap();
    assert!(query.await.is_ok());
}

#[tokio::test]
async fn a_setting_that_postgres_refuses_shows_its_log() {
    let options =
        ClusterOptions { settings: vec![("max_connections".into(), "many".into())], ..Default::default() };
    let error = Cluster::start(options).await.unwrap_err();
    assert!(error.to_string().contains("invalid value for parameter \"max_connections\""), "{error}");
}

#[tokio::test]
async fn tcp_wants_a_password_and_takes_the_right_one() {
    let cluster = cluster().await;
    let login = |password: String| {
        let mut config: tokio_postgres::Config = cluster.url("postgres", "postgres").parse().unwrap();
        config.password(password);
        async move { config.connect(NoTls).await.is_ok() }
    };
    assert!(login(cluster.admin_password().to_owned()).await);
    assert!(!login("wrong".to_owned()).await);
}
