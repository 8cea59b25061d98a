/* Records in a file: kept over a restart, written once a turn, anew when it has grown, gone when nothing is open. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/base/file.h"
#include "tunneld/base/ledger.h"

#include <sys/stat.h>

static char dir[64], path[96], list[4096];
static struct td_ledger *G;

static const char *file_text(void)
{
	static char text[4096];
	size_t n;
	char *p = td_file_read(path, sizeof(text) - 1, 0, &n, NULL);
	snprintf(text, sizeof(text), "%s", p ? p : "none");
	tnl_free(p);
	return text;
}

static void put_file(const char *text)
{
	assert_int_equal(td_file_write(path, text, strlen(text), 0), 0);
}

static void note_record(void *ctx, const char *id, const char *note)
{
	snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s=%s;", id, note);
}

static const char *records(void)
{
	list[0] = '\0';
	td_ledger_each(G, note_record, NULL);
	return list;
}

static void ledger_up(void)
{
	struct td_ledger_config c = {.dir = dir, .name = "open", .module = "test", .risk = "that is a pity"};
	G = td_ledger_new(T, &c);
	assert_non_null(G);
}

static void ledger_gone(void)
{
	td_ledger_free(G);
	G = NULL;
}

static int set_up(void **state)
{
	t_open();
	strcpy(dir, "/tmp/td-ledger-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/open", dir);
	ledger_up();
	return 0;
}

static int tear_down(void **state)
{
	ledger_gone();
	unlink(path);
	t_close();
	return rmdir(dir);
}

static void records_outlive_the_ledger(void **state)
{
	struct stat st;
	td_ledger_add(G, "a", "one two");
	td_ledger_add(G, "b", "");
	td_ledger_add(G, "c", "x");
	assert_string_equal(file_text(), "none"); /* at the end of the turn */
	t_turns(1);
	assert_string_equal(file_text(), "+a one two\n+b\n+c x\n");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	td_ledger_del(G, "b");
	td_ledger_del(G, "b");
	td_ledger_del(G, "unknown");
	td_ledger_add(G, "a", "again");
	t_turns(1);
	assert_string_equal(file_text(), "+a one two\n+b\n+c x\n-b\n");
	ledger_gone();
	ledger_up();
	assert_string_equal(records(), "a=one two;c=x;");
	td_ledger_add(G, "d", "");
	ledger_gone(); /* in the turn of the change */
	assert_string_equal(file_text(), "+a one two\n+c x\n+d\n");
}

static void nothing_open_no_file(void **state)
{
	td_ledger_add(G, "a", "");
	t_turns(1);
	td_ledger_del(G, "a");
	t_turns(1);
	assert_string_equal(file_text(), "none");
	td_ledger_add(G, "b", "");
	td_ledger_del(G, "b");
	t_turns(1);
	assert_string_equal(file_text(), "none");
	td_ledger_add(G, "c", "");
	t_turns(1);
	assert_string_equal(file_text(), "+c\n");
}

static void what_a_crash_or_another_version_left(void **state)
{
	put_file("+a one\nold tunnel name\n-a\n-x\n\n+\n+ note\n+b\n+b twice\n+tor");
	ledger_gone();
	ledger_up();
	assert_string_equal(records(), "old=tunnel name;b=;");
	td_ledger_add(G, "c", ""); /* not behind the torn line */
	t_turns(1);
	assert_string_equal(file_text(), "+old tunnel name\n+b\n+c\n");
}

static void an_id_that_could_not_be_read_back(void **state)
{
	td_ledger_add(G, "a b", "");
	td_ledger_add(G, "a\nb", "");
	td_ledger_add(G, "", "");
	t_turns(1);
	assert_string_equal(file_text(), "none");
}

static void a_long_file_is_written_anew(void **state)
{
	struct stat st;
	off_t most = 0;
	char id[32];
	td_ledger_add(G, "stays", "");
	for (int i = 0; i < 20000; i++) {
		snprintf(id, sizeof(id), "session-%d", i);
		td_ledger_add(G, id, "");
		t_turns(1);
		td_ledger_del(G, id);
		t_turns(1);
		assert_int_equal(stat(path, &st), 0);
		most = st.st_size > most ? st.st_size : most;
	}
	assert_in_range(most, 60000, 70000);
	ledger_gone();
	ledger_up();
	assert_string_equal(records(), "stays=;");
}

static void what_cannot_be_written_is_written_later(void **state)
{
	char away[80];
	snprintf(away, sizeof(away), "%s-away", dir);
	td_ledger_add(G, "a", "");
	t_turns(1);
	td_ledger_del(G, "a");
	t_turns(1);
	assert_int_equal(rename(dir, away), 0);
	td_ledger_add(G, "b", "");
	t_turns(1);
	td_ledger_add(G, "c", "");
	t_turns(1);
	assert_int_equal(rename(away, dir), 0);
	assert_string_equal(file_text(), "none");
	td_ledger_add(G, "d", "");
	t_turns(1);
	assert_string_equal(file_text(), "+b\n+c\n+d\n");
}

static void del_record(void *ctx, const char *id, const char *note)
{
	td_ledger_del(G, id);
	td_ledger_add(G, "new", "");
}

static void records_may_change_while_they_are_walked(void **state)
{
	td_ledger_add(G, "a", "");
	td_ledger_add(G, "b", "");
	td_ledger_each(G, del_record, NULL);
	assert_string_equal(records(), "new=;");
}

static void without_a_directory_nothing_is_kept(void **state)
{
	struct td_ledger_config c = {.name = "open", .module = "test", .risk = ""};
	struct td_ledger *none = td_ledger_new(T, &c);
	assert_null(none);
	td_ledger_add(none, "a", "");
	td_ledger_del(none, "a");
	td_ledger_each(none, note_record, NULL);
	td_ledger_free(none);
}

/* A disk that is full for a while: one line when it begins, one when it is over, and then everything is there. */
static void trouble_is_told_at_its_ends(void **state)
{
	char away[100], id[16];
	snprintf(away, sizeof(away), "%s-away", dir);
	t_log_begin();
	int moved = rename(dir, away);
	for (int i = 0; i < 5; i++) {
		snprintf(id, sizeof(id), "s-%d", i);
		td_ledger_add(G, id, "n");
		t_turns(2);
	}
	int back = rename(away, dir);
	int begun = t_log_count("cannot write"), over = t_log_count("is written again");
	td_ledger_add(G, "s-5", "n");
	t_turns(2);
	td_ledger_add(G, "s-6", "n");
	t_turns(2);
	int begun_at_end = t_log_count("cannot write"), over_at_end = t_log_count("is written again");
	t_log_end();
	assert_true(moved == 0 && back == 0);
	assert_true(begun == 1 && over == 0 && begun_at_end == 1 && over_at_end == 1);
	ledger_gone();
	ledger_up();
	assert_string_equal(records(), "s-0=n;s-1=n;s-2=n;s-3=n;s-4=n;s-5=n;s-6=n;");
}

static void look_again(void *arg)
{
	struct td_timer *t = arg;
	if (t_log_count("is written again"))
		td_loop_stop(T);
	else
		td_timer_in(t, 20 * TD_MS);
}

/* When there is room again nothing has to happen for the records to be written. */
static void it_is_tried_again(void **state)
{
	char away[100];
	struct td_timer look;
	snprintf(away, sizeof(away), "%s-away", dir);
	td_timer_init(&look, T, look_again, &look);
	t_log_begin();
	int moved = rename(dir, away);
	td_ledger_add(G, "s-0", "n");
	t_turns(2);
	int back = rename(away, dir);
	td_timer_in(&look, 0);
	td_loop_run(T);
	t_log_end();
	assert_true(moved == 0 && back == 0);
	td_timer_stop(&look);
	assert_string_equal(file_text(), "+s-0 n\n");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(records_outlive_the_ledger),
	    TEST(nothing_open_no_file),
	    TEST(what_a_crash_or_another_version_left),
	    TEST(an_id_that_could_not_be_read_back),
	    TEST(a_long_file_is_written_anew),
	    TEST(what_cannot_be_written_is_written_later),
	    TEST(trouble_is_told_at_its_ends),
	    TEST(it_is_tried_again),
	    TEST(records_may_change_while_they_are_walked),
	    TEST(without_a_directory_nothing_is_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
