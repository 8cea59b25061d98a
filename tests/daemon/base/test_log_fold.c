/* Folding of log lines: how many come out of a flood, that nothing that is new is lost, bounds. */
#include "tunneld/base/log_fold.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define SEC ((uint64_t)1000000000)

static unsigned lines, said;
static char last[600];

static void on_write(enum tnl_log_level level, const char *module, const char *session, const char *text)
{
	said++;
	snprintf(last, sizeof(last), "%s|%s|%s", module, session, text);
}

static void log_line(enum tnl_log_level level, const char *format, const char *session, const char *text, uint64_t now)
{
	const struct td_fold_line l = {level, format, "m", session, text};
	lines += td_fold_passes(&l, now, on_write);
}

static int begin(void **state)
{
	td_fold_clear();
	lines = said = 0;
	last[0] = '\0';
	return 0;
}

static const char refused[] = "request refused", other[] = "something else";

/* What a peer may choose stands in quotes, and does not make its lines kinds of their own. */
static void quotes_hide_keys(void **state)
{
	char text[200];
	for (int i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text),
			 "request refused key=\"A reason=%d \\\" reason=%d\" reason=signature peer=1.2.3.4:%d", i, i,
			 i + 1);
		log_line(TNL_LOG_WARN, refused, NULL, text, 5 * SEC);
	}
	assert_in_range(lines, 1, TD_FOLD_PASS);
}

/* With the marks of pairs, and among them what a peer wrote. */
static void marks_change_nothing(void **state)
{
	char text[200];
	for (int i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text),
			 "request refused \x1ekey=\"peer=%d\" \x1ereason=signature \x1epeer=1.2.3.4:%d", i, i + 1);
		log_line(TNL_LOG_WARN, refused, NULL, text, 5 * SEC);
	}
	assert_int_equal(lines, TD_FOLD_PASS);
	log_line(TNL_LOG_WARN, refused, NULL, "request refused \x1ereason=other \x1epeer=1.2.3.4:7", 5 * SEC);
	log_line(TNL_LOG_WARN, refused, NULL, "request refused \x1ereason=signature \x1epeer=1.2.3.5:7", 5 * SEC);
	assert_int_equal(lines, TD_FOLD_PASS + 2);
}

static void a_flood_is_a_few_lines_and_a_number(void **state)
{
	char text[100];
	uint64_t now = 5 * SEC;
	for (int i = 0; i < 12365; i++) { /* another port each time */
		snprintf(text, sizeof(text), "request refused peer=192.0.2.1:%d status=404 field=\"%d\"", 1000 + i, i);
		log_line(TNL_LOG_WARN, refused, NULL, text, now + (uint64_t)i * 1000000);
	}
	assert_int_equal(lines, TD_FOLD_PASS);
	assert_int_equal(said, 0);
	assert_true(td_fold_say(now + 30 * SEC, false, on_write) == now + 60 * SEC);
	assert_true(td_fold_say(now + 60 * SEC, false, on_write) == UINT64_MAX);
	assert_int_equal(said, 1);
	assert_string_equal(last,
			    "m||request refused peer=192.0.2.1:13364 status=404 field=\"12364\" … 12,345 more in 60 s");
	for (int m = 1; m <= 10; m++) { /* it goes on: a line and a number a minute */
		for (int i = 0; i < 1000; i++)
			log_line(TNL_LOG_WARN, refused, NULL, text, now + (uint64_t)m * 60 * SEC + (uint64_t)i);
	}
	assert_int_equal(lines, TD_FOLD_PASS + 10);
	td_fold_say(now + 661 * SEC, true, on_write);
	assert_int_equal(said, 11);
	td_fold_say(now + 720 * SEC, false, on_write); /* quiet: forgotten, the next time is a first one */
	for (int i = 0; i < 100; i++)
		log_line(TNL_LOG_WARN, refused, NULL, text, now + 1000 * SEC);
	assert_int_equal(lines, 2 * TD_FOLD_PASS + 10);
}

static void what_is_new_passes(void **state)
{
	for (int i = 0; i < 1000; i++)
		log_line(TNL_LOG_WARN, refused, NULL, "refused peer=192.0.2.1:5 reason=A field=\"x\"", SEC);
	lines = 0;
	log_line(TNL_LOG_WARN, refused, NULL, "refused peer=192.0.2.1:5 reason=B field=\"x\"",
		 SEC); /* another reason */
	log_line(TNL_LOG_WARN, refused, NULL, "refused peer=192.0.2.2:5 reason=A field=\"x\"", SEC); /* peer */
	log_line(TNL_LOG_WARN, refused, NULL, "refused peer=[2001:db8::1]:5 reason=A", SEC);
	log_line(TNL_LOG_WARN, other, NULL, "refused peer=192.0.2.1:5 reason=A field=\"x\"", SEC);    /* kind */
	log_line(TNL_LOG_ERROR, refused, NULL, "refused peer=192.0.2.1:5 reason=A field=\"x\"", SEC); /* level */
	log_line(TNL_LOG_WARN, refused, NULL, "refused tunnel=db peer=192.0.2.1:5: why reason=A", SEC);
	assert_int_equal(lines, 6);
}

static void sessions_of_a_user_are_one_peer(void **state)
{
	char id[40];
	for (int i = 0; i < 300; i++) {
		snprintf(id, sizeof(id), "ops-%017d", i);
		log_line(TNL_LOG_INFO, refused, id, "session starts", SEC);
	}
	assert_int_equal(lines, TD_FOLD_PASS_INFO);
	log_line(TNL_LOG_INFO, refused, "dev-00000000000000001", "session starts", SEC);
	assert_int_equal(lines, TD_FOLD_PASS_INFO + 1);
	td_fold_say(2 * SEC, true, on_write);
	assert_string_equal(last, "m|ops-00000000000000299|session starts … 200 more in 1 s");
}

static void many_peers_share_a_bounded_table(void **state)
{
	char text[100];
	for (unsigned i = 0; i < 200000; i++) {
		snprintf(text, sizeof(text), "refused peer=10.%u.%u.%u:9", i >> 16, i >> 8 & 255, i & 255);
		log_line(TNL_LOG_WARN, refused, NULL, text, SEC);
	}
	assert_in_range(lines, TD_FOLD_SETS, TD_FOLD_SETS * TD_FOLD_WAYS + TD_FOLD_PASS);
	lines = 0;
	log_line(TNL_LOG_ERROR, other, NULL, "disk is full", SEC); /* the first of a kind, however full it is */
	assert_int_equal(lines, 1);
	td_fold_say(61 * SEC, false, on_write);
	assert_int_equal(said, 1);
	assert_non_null(strstr(last, " more in 60 s"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(a_flood_is_a_few_lines_and_a_number, begin),
	    cmocka_unit_test_setup(quotes_hide_keys, begin),
	    cmocka_unit_test_setup(marks_change_nothing, begin),
	    cmocka_unit_test_setup(what_is_new_passes, begin),
	    cmocka_unit_test_setup(sessions_of_a_user_are_one_peer, begin),
	    cmocka_unit_test_setup(many_peers_share_a_bounded_table, begin),
	};
	return cmocka_run_group_tests_name("log folding", tests, NULL, NULL);
}
