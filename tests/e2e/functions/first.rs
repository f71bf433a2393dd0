//! Databases in which nobody has made a function yet, or hardly anybody.

use super::{run, settled, stage_behind, stage_with, wrong_of};

#[tokio::test]
async fn the_first_function_of_a_database_is_known_whoever_makes_it() {
    let enter = "FUNCTION enter(who text) RETURNS boolean LANGUAGE plpgsql AS \
         $y$ BEGIN PERFORM set_config('app.user', who, false); RETURN true; END $y$";
    let mut wrong = Vec::new();
    for make in [
        format!("CREATE {enter}"),
        format!("BEGIN; CREATE {enter}; COMMIT"),
        format!("DO $x$ BEGIN EXECUTE $e$CREATE {enter}$e$; END $x$"),
    ] {
        let stage = stage_with(&[]).await;
        let mut maker = stage.client("acme").await;
        // Whoever asks is told that there are none.
        settled(&stage).await;
        settled(&stage).await;
        run(&mut maker, &make).await;
        drop(maker);
        wrong.extend(wrong_of(&stage, &["SELECT enter('ann')"]).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Nobody but these has made any, and they are not in the tenant's schema.
#[tokio::test]
async fn the_only_functions_of_a_database_are_found_wherever_they_are() {
    let body =
        "RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('app.user', 'ann', false); END $$";
    let mut wrong = Vec::new();
    for (others, sql) in [
        // What an extension's script makes is the extension's.
        (
            format!(
                "CREATE EXTENSION hstore SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC; \
                 CREATE FUNCTION public.enter() {body}; ALTER EXTENSION hstore ADD FUNCTION public.enter()"
            ),
            "SELECT public.enter()",
        ),
        (
            format!(
                "CREATE ROLE other; CREATE SCHEMA others AUTHORIZATION other; SET ROLE other; \
                 GRANT USAGE ON SCHEMA others TO PUBLIC; CREATE FUNCTION others.enter() {body}"
            ),
            "SELECT others.enter()",
        ),
        (
            "CREATE SCHEMA hidden; CREATE FUNCTION hidden.enter() RETURNS event_trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM set_config('app.user', 'ann', false); END $$; \
             CREATE EVENT TRIGGER entered ON ddl_command_end EXECUTE FUNCTION hidden.enter()"
                .to_owned(),
            "CREATE TABLE made()",
        ),
    ] {
        let stage = stage_behind(&others, &[]).await;
        wrong.extend(wrong_of(&stage, &[sql]).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
