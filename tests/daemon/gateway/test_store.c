/* The session store: what was answered as written is there after a restart,
 * in order, and nobody else can use or read the file meanwhile. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/gateway/store.h"
#include "lib/crypto.h"
#include "lib/err.h"
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64], spec[128], path[100];
static struct td_loop *loop;

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/tunneld-store-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s.db", dir);
	snprintf(spec, sizeof(spec), "sqlite:%s", path);
	loop = td_loop_new();
	return 0;
}

static int teardown(void **state)
{
	char cmd[128];
	td_loop_free(loop);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static int unwritten;
static void on_unwritten(void *ctx, const char *session)
{
	assert_ptr_equal(ctx, &unwritten);
	assert_string_equal(session, "a");
	unwritten++;
}

static struct td_store *open_at(const char *where, char *why, size_t cap)
{
	static const struct td_store_cb cb = {.unwritten = on_unwritten};
	return td_store_open(loop, &(struct td_store_opts){.spec = where, .cb = &cb, .ctx = &unwritten}, why, cap);
}

static struct td_store *open_ok(void)
{
	char why[300] = "";
	struct td_store *s = open_at(spec, why, sizeof(why));
	if (!s)
		fail_msg("%s", why);
	return s;
}

/* --- counting answers, stopping the loop at the last one ------------------- */
static int answers, wanted, last_err;
static void on_done(void *ctx, int err)
{
	last_err = err;
	if (++answers == wanted)
		td_loop_stop(loop);
}

static void put_and_wait(struct td_store *s, const struct td_store_session *r)
{
	answers = 0;
	wanted = 1;
	td_store_put(s, r, on_done, NULL);
	td_loop_run(loop);
	assert_int_equal(last_err, 0);
}

/* --- what is in it ---------------------------------------------------------- */
struct seen {
	int n;
	char ids[64][40];
	char status[64][20];
	struct td_store_session last;
	char text[9][100];
};
static void on_each(void *ctx, const struct td_store_session *r)
{
	struct seen *s = ctx;
	snprintf(s->ids[s->n], sizeof(s->ids[0]), "%s", r->id);
	snprintf(s->status[s->n], sizeof(s->status[0]), "%s", r->status);
	s->n++;
	s->last = *r;
	const char *t[9] = {r->id,     r->owner,     r->target, r->document, r->parameters,
			    r->reason, r->client_id, r->status, r->output};
	for (int i = 0; i < 9; i++)
		snprintf(s->text[i], sizeof(s->text[0]), "%s", t[i]);
}

static struct seen seen;
static void reopen(struct td_store **s)
{
	td_store_close(*s);
	*s = open_ok();
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(td_store_load(*s, on_each, &seen), 0);
}

static struct td_store_session record(const char *id)
{
	struct td_store_session r = {.id = id,
				     .owner = "ops",
				     .target = "i-1",
				     .document = "Doc",
				     .parameters = "{\"a\":\"b\"}",
				     .reason = "it's \"why\"",
				     .client_id = "c-1",
				     .status = "Connected",
				     .output = "",
				     .started_ms = 1795338608809ull,
				     .expires_ms = 1795338609999ull};
	return r;
}

static void test_round_trip(void **state)
{
	struct td_store *s = open_ok();
	struct td_store_session r = record("ops-1");
	r.grants = TD_STORE_GRANT_DIAL | TD_STORE_GRANT_REVERSE;
	r.ntokens = 2;
	tnl_sha256("x", 1, r.tokens[0].hash);
	r.tokens[0].role = 0;
	r.tokens[0].expires_ms = 42;
	tnl_sha256("y", 1, r.tokens[1].hash);
	r.tokens[1].role = 1;
	r.tokens[1].bound = true; /* bound to the empty ClientId of a stock agent: not the same as unbound */
	put_and_wait(s, &r);
	reopen(&s);
	assert_int_equal(seen.n, 1);
	const char *want[9] = {"ops-1", "ops", "i-1", "Doc", "{\"a\":\"b\"}", "it's \"why\"", "c-1", "Connected", ""};
	for (int i = 0; i < 9; i++)
		assert_string_equal(seen.text[i], want[i]);
	assert_true(seen.last.started_ms == r.started_ms && seen.last.expires_ms == r.expires_ms &&
		    seen.last.ended_ms == 0 && seen.last.grants == r.grants);
	assert_int_equal(seen.last.ntokens, 2);
	for (unsigned i = 0; i < 2; i++) {
		int k = seen.last.tokens[i].role;
		assert_memory_equal(seen.last.tokens[i].hash, r.tokens[k].hash, 32);
		assert_int_equal(seen.last.tokens[i].bound, k == 1);
		assert_true(seen.last.tokens[i].expires_ms == r.tokens[k].expires_ms);
	}
	td_store_close(s);
}

static void test_order_update_delete(void **state)
{
	struct td_store *s = open_ok();
	answers = 0;
	wanted = 40;
	char ids[40][16];
	for (int i = 0; i < 40; i++) {
		snprintf(ids[i], sizeof(ids[i]), "s-%02d", i);
		struct td_store_session r = record(ids[i]);
		r.started_ms += (uint64_t)i;
		r.ntokens = 1;
		td_store_put(s, &r, on_done, NULL);
	}
	struct td_store_session r = record("s-07");
	r.status = "Terminated";
	r.ended_ms = 7;
	td_store_put(s, &r, NULL, NULL); /* later writes of one record win, and its tokens go */
	td_store_del(s, "s-03");
	td_loop_run(loop);
	reopen(&s); /* closing writes what is still queued */
	assert_int_equal(seen.n, 39);
	for (int i = 0; i < 39; i++) {
		assert_string_equal(seen.ids[i], ids[i < 3 ? i : i + 1]);
		assert_string_equal(seen.status[i], strcmp(seen.ids[i], "s-07") == 0 ? "Terminated" : "Connected");
	}
	td_store_close(s);
}

/* Of a session that changes faster than its record is written the last state counts; it is written soon although nobody
 * waits for it. */
static void test_newer_takes_the_place(void **state)
{
	struct td_store *s = open_ok();
	struct td_store_stats st = {.queued = 1};
	struct td_store_session r = record("a"), other = record("b");
	answers = 0;
	wanted = 2;
	td_store_put(s, &r, on_done, NULL);
	for (int i = 0; i < 100; i++) {
		r.status = i % 2 ? "Connecting" : "Connected";
		td_store_put(s, &r, NULL, NULL);
		td_store_put(s, &other, NULL, NULL);
	}
	r.status = "Terminated";
	r.ended_ms = 9;
	r.ntokens = 1;
	td_store_put(s, &r, on_done, NULL);
	td_loop_run(loop);
	td_store_stats(s, &st);
	assert_in_range(st.written, 2, 20);
	other.status = "Failed";
	td_store_put(s, &other, NULL, NULL);
	for (st.queued = 1; st.queued; td_store_stats(s, &st))
		sched_yield();
	/* it went, and came back */
	td_store_del(s, "b");
	td_store_put(s, &other, NULL, NULL);
	td_store_del(s, "a");
	reopen(&s);
	assert_int_equal(seen.n, 1);
	assert_string_equal(seen.ids[0], "b");
	assert_string_equal(seen.status[0], "Failed");
	td_store_close(s);
}

static void run_sql(const char *sql)
{
	sqlite3 *db;
	char *fault = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &fault) != SQLITE_OK)
		fail_msg("%s: %s", sql, fault);
	sqlite3_close(db);
}

/* As the first version made it, which has no grants, and can still write what this one wrote. */
static void test_an_older_file(void **state)
{
	run_sql("CREATE TABLE session(id TEXT PRIMARY KEY, owner TEXT NOT NULL, target TEXT NOT NULL,"
		" document TEXT NOT NULL, parameters TEXT NOT NULL, reason TEXT NOT NULL, client_id TEXT NOT NULL,"
		" status TEXT NOT NULL, output TEXT NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL,"
		" expires_ms INTEGER NOT NULL) WITHOUT ROWID; PRAGMA user_version=1;"
		"INSERT INTO session VALUES('old','ops','i-1','Doc','{}','','c-1','Connected','',5,0,6)");
	struct td_store *s = open_ok();
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(td_store_load(s, on_each, &seen), 0);
	assert_int_equal(seen.n, 1);
	assert_string_equal(seen.text[6], "c-1");
	assert_true(seen.last.expires_ms == 6 && seen.last.grants == 0);
	struct td_store_session r = record("new");
	r.grants = TD_STORE_GRANT_REVERSE;
	put_and_wait(s, &r);
	td_store_close(s);
	run_sql("INSERT INTO session(id,owner,target,document,parameters,reason,client_id,status,output,started_ms,"
		"ended_ms,expires_ms) VALUES('new','ops','i-1','Doc','{}','','c-2','Connected','',9,0,9) "
		"ON CONFLICT(id) DO UPDATE SET client_id=excluded.client_id");
	s = open_ok();
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(td_store_load(s, on_each, &seen), 0);
	assert_int_equal(seen.n, 2);
	assert_string_equal(seen.text[0], "new");
	assert_string_equal(seen.text[6], "c-2");
	assert_true(seen.last.grants == TD_STORE_GRANT_REVERSE);
	td_store_close(s);
}

static void test_close_writes_the_queue(void **state)
{
	struct td_store *s = open_ok();
	struct td_store_session r = record("late");
	td_store_put(s, &r, on_done, NULL);
	answers = 0;
	reopen(&s);
	assert_int_equal(answers, 0); /* no callback out of a closed store */
	assert_int_equal(seen.n, 1);
	td_store_close(s);
}

/* What was answered survives the death of the process. */
static void test_kill(void **state)
{
	int p[2];
	assert_int_equal(pipe(p), 0);
	pid_t pid = fork();
	if (pid == 0) {
		td_loop_free(loop);
		loop = td_loop_new();
		struct td_store *s = open_ok();
		struct td_store_session r = record("survivor");
		put_and_wait(s, &r);
		if (write(p[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	char c;
	assert_int_equal(read(p[0], &c, 1), 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	struct td_store *s = open_ok();
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(td_store_load(s, on_each, &seen), 0);
	assert_int_equal(seen.n, 1);
	assert_string_equal(seen.ids[0], "survivor");
	td_store_close(s);
	close(p[0]);
	close(p[1]);
}

static void test_private_and_exclusive(void **state)
{
	char why[300];
	struct stat st;
	struct td_store *s = open_ok();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_null(open_at(spec, why, sizeof(why)));
	assert_non_null(strstr(why, "another gateway"));
	td_store_close(s);
}

/* As sqlite3's .backup does it: a reader comes in while the store is open, sees what is committed, and both go on. */
static void test_backup(void **state)
{
	struct td_store *s = open_ok();
	struct td_store_session r = record("kept");
	sqlite3 *from, *to;
	sqlite3_stmt *st;
	put_and_wait(s, &r);
	assert_int_equal(sqlite3_open_v2(path, &from, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_open(":memory:", &to), SQLITE_OK);
	sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
	assert_non_null(b);
	assert_int_equal(sqlite3_backup_step(b, 1), SQLITE_OK);
	r = record("later");
	put_and_wait(s, &r);
	assert_int_equal(sqlite3_backup_step(b, -1), SQLITE_DONE);
	assert_int_equal(sqlite3_backup_finish(b), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(to, "SELECT id FROM session", -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	assert_string_equal(sqlite3_column_text(st, 0), "kept");
	sqlite3_finalize(st);
	sqlite3_close(to);
	sqlite3_close(from);
	td_store_close(s);
}

static void test_bad_files(void **state)
{
	char why[300];
	assert_null(open_at("other:x", why, sizeof(why)));
	assert_non_null(strstr(why, "sqlite:PATH"));
	assert_null(open_at("sqlite:/nowhere/at/all/s.db", why, sizeof(why)));
	assert_non_null(strstr(why, "No such file"));
	FILE *f = fopen(path, "w");
	for (int i = 0; i < 400; i++)
		fputs("this is no database ", f);
	fclose(f);
	assert_null(open_at(spec, why, sizeof(why)));
	assert_non_null(strstr(why, "move it away"));
}

/* A write that fails is answered as failed, and the next one works again. */
static void test_failed_write(void **state)
{
	struct td_store *s = open_ok();
	struct td_store_session r = record("a");
	static char big[600 * 1000];
	memset(big, 'x', sizeof(big) - 1);
	r.parameters = big;
	struct rlimit old, small = {128 * 1024, 128 * 1024};
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &small); /* as if the disk were full */
	answers = unwritten = 0;
	wanted = 1;
	t_log_begin();
	td_store_put(s, &r, on_done, NULL);
	td_loop_run(loop);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(last_err, TNL_EIO);
	assert_int_equal(unwritten, 1);
	r = record("b");
	put_and_wait(s, &r);
	int told = t_log_count("record not written"), over = t_log_count("are written again");
	t_log_end();
	assert_true(told == 1 && over == 1);
	struct td_store_stats st;
	td_store_stats(s, &st);
	assert_true(st.failed == 1 && st.written == 1 && st.queued == 0);
	reopen(&s);
	assert_int_equal(seen.n, 1);
	td_store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_order_update_delete, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_newer_takes_the_place, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_an_older_file, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_close_writes_the_queue, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_backup, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_private_and_exclusive, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_failed_write, setup, teardown),
	};
	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
