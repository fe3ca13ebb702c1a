//! `docs/supervision-conformance.md` and this suite say the same: every case of OTP's is there, in OTP's order, and every
//! test that it names exists, and none exists that it does not name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// OTP's cases, in the order in which its suite runs them.
const OTP: &str = "
    sup_start_normal sup_start_ignore_init sup_start_ignore_child sup_start_ignore_temporary_child
    sup_start_ignore_temporary_child_start_child sup_start_ignore_temporary_child_start_child_simple
    sup_start_ignore_permanent_child_start_child_simple sup_start_error_return sup_start_fail
    sup_start_child_returns_error sup_start_restart_child_returns_error sup_start_child_returns_error_simple
    sup_start_map sup_start_map_simple sup_start_map_faulty_specs
    sup_stop_infinity sup_stop_timeout sup_stop_timeout_dynamic sup_stop_brutal_kill sup_stop_brutal_kill_dynamic
    sup_stop_race sup_stop_non_shutdown_exit_dynamic sup_stop_manual sup_stop_manual_timeout
    child_adm child_adm_simple extra_return child_specs child_specs_map sup_flags multiple_restarts auto_hibernate
    one_for_one one_for_one_escalation
    one_for_all one_for_all_escalation one_for_all_other_child_fails_restart
    simple_one_for_one simple_one_for_one_shutdown simple_one_for_one_extra simple_one_for_one_escalation
    simple_one_for_one_corruption simple_one_for_one_restart_ignore
    rest_for_one rest_for_one_escalation rest_for_one_other_child_fails_restart
    external_start_no_progress_log permanent_normal transient_normal temporary_normal
    permanent_shutdown transient_shutdown temporary_shutdown faulty_application_shutdown
    permanent_abnormal transient_abnormal temporary_abnormal
    child_unlink tree
    nonsignificant_temporary nonsignificant_transient significant_temporary significant_transient significant_simple
    significant_bystander significant_escalation significant_upgrade_never_any significant_upgrade_any_never
    significant_upgrade_never_all significant_upgrade_all_never significant_upgrade_any_all
    significant_upgrade_all_any significant_upgrade_child
    count_children count_children_supervisor count_restarting_children get_callback_module
    do_not_save_start_parameters_for_temporary_children do_not_save_child_specs_for_temporary_children
    simple_one_for_one_scale_many_temporary_children temporary_bystander simple_global_supervisor
    hanging_restart_loop hanging_restart_loop_rest_for_one hanging_restart_loop_simple
    code_change code_change_map code_change_simple code_change_simple_map
    order_of_children scale_start_stop_many_children scale_mass_exit_children format_log_1 format_log_2
    already_started_outside_supervisor which_children which_children_simple_one_for_one
";

/// As many are to apply at least.
const APPLY: usize = 80;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One row: a case of OTP's, or what is shown beyond them.
struct Row {
    case: String,
    verdict: String,
    why: String,
    tests: Vec<String>,
}

/// The text between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("../../docs/supervision-conformance.md")).unwrap();
    let cells =
        |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let rows = text.lines().filter(|line| line.starts_with("| `") || line.starts_with("| beyond"));
    rows.map(|line| {
        let [case, verdict, why, tests] = cells(line).try_into().unwrap_or_else(|_| panic!("four cells: {line}"));
        Row { case: case.trim_matches('`').to_owned(), verdict, why, tests: quoted(&tests) }
    })
    .collect()
}

/// The tests in one file, as `module::test`.
fn tests_in(file: &Path) -> Vec<String> {
    let module = file.file_stem().unwrap().to_str().unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let mut tests = Vec::new();
    let mut marked = false;
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with("#[tokio::test") || line.starts_with("#[test]") {
            marked = true;
        } else if let Some(name) = line.strip_prefix("async fn ").or(line.strip_prefix("fn "))
            && std::mem::take(&mut marked)
        {
            tests.push(format!("{module}::{}", name.split('(').next().unwrap()));
        }
    }
    tests
}

fn tests() -> BTreeSet<String> {
    let files = std::fs::read_dir(root().join("tests/conformance")).unwrap();
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "rs"));
    files.flat_map(|file| tests_in(&file)).collect()
}

#[test]
fn every_case_is_there_once_and_in_order() {
    let rows = rows();
    let cases: Vec<_> = rows.iter().filter(|row| row.verdict != "beyond").map(|row| row.case.as_str()).collect();
    assert_eq!(cases, OTP.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn every_verdict_has_what_it_needs() {
    for Row { case, verdict, why, tests } in rows() {
        match &*verdict {
            "kept" => assert!(!tests.is_empty(), "{case}: by which test?"),
            "adapted" | "beyond" => assert!(!why.is_empty() && !tests.is_empty(), "{case}: why, and by which test?"),
            "not applicable" => assert!(!why.is_empty() && tests.is_empty(), "{case}: why?"),
            other => panic!("{case}: what is `{other}`?"),
        }
        // A case is shown by the test of its name.
        if verdict == "kept" || verdict == "adapted" {
            let shown = tests.iter().any(|test| test.rsplit("::").next() == Some(&case));
            assert!(shown, "{case}: not by a test of that name, but by {tests:?}");
        }
    }
}

#[test]
fn the_tests_are_those_of_the_table() {
    let named: Vec<_> = rows().into_iter().flat_map(|row| row.tests).collect();
    let set: BTreeSet<_> = named.iter().cloned().collect();
    assert_eq!(named.len(), set.len(), "a test is named twice");
    let tests = tests();
    let missing: Vec<_> = set.difference(&tests).collect();
    assert!(missing.is_empty(), "named, and not there: {missing:?}");
    let unnamed: Vec<_> = tests.difference(&set).collect();
    assert!(unnamed.is_empty(), "there, and not named: {unnamed:?}");
}

#[test]
fn enough_cases_apply() {
    let apply = rows().iter().filter(|row| row.verdict == "kept" || row.verdict == "adapted").count();
    assert!(apply >= APPLY, "only {apply} cases of OTP's are kept or adapted");
}

/// The document says how many of each there are.
#[test]
fn the_sums_are_right() {
    let rows = rows();
    let count = |verdict: &str| rows.iter().filter(|row| row.verdict == verdict).count();
    let text = std::fs::read_to_string(root().join("../../docs/supervision-conformance.md")).unwrap();
    let sums = format!(
        "{} cases: {} kept, {} adapted, {} not applicable",
        OTP.split_whitespace().count(),
        count("kept"),
        count("adapted"),
        count("not applicable")
    );
    assert!(text.contains(&sums), "the document does not say: {sums}");
}
