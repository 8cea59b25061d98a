/* The store that nodes share, against a Redis server: who owns a session, tokens, places, instances, words, and that
 * all of it heals when the server has forgotten everything. */
#include "tests/daemon/gateway/redis_test.h"
#include "lib/err.h"
#include "lib/num.h"
#include "tunneld/gateway/store.h"
#include "tunneld/net/redis.h"

struct node {
	struct td_store *s;
	int announced, taken, lost, heard;
	char text[400], session[80];
};
static struct node A, B;

static void on_announce(void *ctx)
{
	((struct node *)ctx)->announced++;
}

static void on_lost(void *ctx, const char *session)
{
	struct node *n = ctx;
	n->lost++;
	snprintf(n->session, sizeof(n->session), "%s", session);
}

static void on_message(void *ctx, const char *text, size_t len)
{
	struct node *n = ctx;
	n->heard++;
	snprintf(n->text, sizeof(n->text), "%.*s", (int)len, text);
}

static void on_taken(void *ctx)
{
	((struct node *)ctx)->taken++;
}

static void on_beat(void *ctx) {}

static const struct td_store_cb cb = {
    .announce = on_announce, .lost = on_lost, .message = on_message, .taken = on_taken, .beat = on_beat};

static struct td_store *open_as(struct node *n, const char *name, char *why, size_t cap)
{
	const struct td_store_opts o = {
	    .spec = redis_server.url, .node = name, .peer = "192.0.2.1:9", .cb = &cb, .ctx = n};
	memset(n, 0, sizeof(*n));
	return n->s = td_store_open(T, &o, why, cap);
}

static void open_ok(struct node *n, const char *name)
{
	char why[700] = "";
	if (!open_as(n, name, why, sizeof(why)))
		fail_msg("%s", why);
	assert_true(t_until(&n->announced, 10000));
	assert_true(td_store_is_up(n->s));
}

static void close_node(struct node *n)
{
	td_store_close(n->s);
	n->s = NULL;
}

/* --- answers -------------------------------------------------------------------- */
static struct {
	int n, err;
	enum td_store_where where;
	enum td_store_verdict verdict;
	char node[40], owner[40], value[80], ids[200];
	uint64_t epoch, grants;
	unsigned count, which, went;
} R;

static void wait_answer(void)
{
	assert_true(t_until(&R.n, 10000));
}

static void on_done(void *ctx, int err)
{
	R.n++;
	R.err = err;
}

static void on_found(void *ctx, int err, const struct td_store_found *f)
{
	R.n++;
	R.err = err;
	R.where = f->where;
	snprintf(R.node, sizeof(R.node), "%s", f->node);
	snprintf(R.owner, sizeof(R.owner), "%s", f->r ? f->r->owner : "");
	R.epoch = f->r ? f->r->epoch : 0;
	R.grants = f->r ? f->r->grants : 0;
}

static void find(struct node *n, const char *id, enum td_store_take take)
{
	memset(&R, 0, sizeof(R));
	td_store_find(n->s, id, take, on_found, NULL);
	wait_answer();
	assert_int_equal(R.err, 0);
}

static int put(struct node *n, const char *id, uint64_t epoch, uint64_t started, uint64_t ended)
{
	const struct td_store_session r = {.id = id,
					   .owner = "ops",
					   .target = "i-1",
					   .document = "d",
					   .parameters = "{\"a\":\"b\\n\"}",
					   .status = ended ? "Terminated" : "Connected",
					   .started_ms = started,
					   .ended_ms = ended,
					   .keep_ms = 60000,
					   .grants = TD_STORE_GRANT_REVERSE,
					   .epoch = epoch};
	memset(&R, 0, sizeof(R));
	td_store_put(n->s, &r, on_done, NULL);
	wait_answer();
	return R.err;
}

/* --- who owns a session ------------------------------------------------------------ */
static void test_a_session_has_one_owner(void **state)
{
	open_ok(&A, "a");
	open_ok(&B, "b");
	assert_int_equal(put(&A, "s1", 1, 10, 0), 0);
	find(&B, "s1", TD_STORE_TAKE);
	assert_int_equal(R.where, TD_STORE_OTHER);
	assert_string_equal(R.node, "a");
	assert_string_equal(R.owner, "ops");
	find(&B, "nothing", TD_STORE_TAKE);
	assert_int_equal(R.where, TD_STORE_NONE);
	find(&B, "s1", TD_STORE_TAKE_BACK);
	assert_int_equal(R.where, TD_STORE_OURS);
	assert_int_equal(R.epoch, 2);
	assert_int_equal(R.grants, TD_STORE_GRANT_REVERSE);
	assert_true(t_until(&A.heard, 5000));
	assert_non_null(strstr(A.text, "\"lost\""));
	assert_int_equal(put(&A, "s1", 1, 10, 0), TNL_EEXPIRED); /* who missed that is told when it writes */
	assert_true(t_until(&A.lost, 5000));
	assert_string_equal(A.session, "s1");
	assert_int_equal(put(&B, "s1", 2, 10, 0), 0);
	close_node(&A);
	close_node(&B);
}

/* Several links of a session come at a time: what the first made it write is not refused because of the others. */
static void test_what_is_asked_for_twice_is_taken_once(void **state)
{
	static const enum td_store_take all[] = {TD_STORE_TAKE, TD_STORE_TAKE_BACK, TD_STORE_UNITE};
	open_ok(&A, "a");
	open_ok(&B, "b");
	assert_int_equal(put(&A, "s1", 1, 10, 0), 0);
	find(&B, "s1", TD_STORE_TAKE_BACK);
	assert_int_equal(R.epoch, 2);
	for (size_t i = 0; i < TNL_COUNT(all); i++) {
		find(&B, "s1", all[i]);
		assert_int_equal(R.where, TD_STORE_OURS);
		assert_int_equal(R.epoch, 2);
	}
	assert_int_equal(put(&B, "s1", 2, 10, 0), 0);
	assert_false(B.lost);
	close_node(&A);
	close_node(&B);
}

static void test_what_a_node_leaves_is_free(void **state)
{
	open_ok(&A, "a");
	open_ok(&B, "b");
	assert_int_equal(put(&A, "s1", 1, 10, 0), 0);
	assert_int_equal(put(&A, "s2", 1, 11, 0), 0);
	td_store_leaving(A.s);
	t_turns(20);
	find(&B, "s1", TD_STORE_LOOK);
	while (R.where == TD_STORE_OTHER)
		find(&B, "s1", TD_STORE_LOOK);
	assert_int_equal(R.where, TD_STORE_FREE);
	close_node(&A);
	find(&B, "s2", TD_STORE_TAKE);
	assert_int_equal(R.where, TD_STORE_OURS);
	assert_int_equal(put(&B, "s2", 2, 11, 12), 0);
	find(&B, "s2", TD_STORE_TAKE);
	assert_int_equal(R.where, TD_STORE_ENDED);
	close_node(&B);
}

/* Its ends came to different nodes, since that which is named in its id is gone. */
static void test_a_session_without_its_home_is_united(void **state)
{
	open_ok(&A, "a");
	open_ok(&B, "b");
	assert_int_equal(put(&A, "u-c-0123456789abcdef0", 1, 10, 0), 0);
	assert_int_equal(put(&A, "u-a-0123456789abcdef0", 1, 10, 0), 0);
	find(&B, "u-a-0123456789abcdef0", TD_STORE_UNITE);
	assert_int_equal(R.where, TD_STORE_OTHER);
	find(&B, "u-c-0123456789abcdef0", TD_STORE_TAKE);
	assert_int_equal(R.where, TD_STORE_OTHER);
	find(&B, "u-a-0123456789abcdef0", TD_STORE_MAY_UNITE);
	assert_int_equal(R.where, TD_STORE_OTHER);
	find(&B, "u-c-0123456789abcdef0", TD_STORE_MAY_UNITE);
	assert_int_equal(R.where, TD_STORE_FREE);
	find(&B, "u-c-0123456789abcdef0", TD_STORE_UNITE);
	assert_int_equal(R.where, TD_STORE_OURS);
	assert_true(t_until(&A.heard, 5000));
	close_node(&A);
	close_node(&B);
}

static int loaded;
static void on_each(void *ctx, const struct td_store_session *r)
{
	loaded++;
	snprintf(R.ids, sizeof(R.ids), "%s %s %s", r->id, r->owner, r->parameters);
	R.epoch = r->epoch;
}

static void test_a_node_that_starts_again_has_its_sessions(void **state)
{
	open_ok(&A, "a");
	assert_int_equal(put(&A, "s1", 1, 10, 0), 0);
	assert_int_equal(put(&A, "s2", 1, 10, 20), 0);
	close_node(&A);
	char why[700];
	assert_non_null(open_as(&A, "a", why, sizeof(why)));
	loaded = 0;
	assert_int_equal(td_store_load(A.s, on_each, NULL), 0);
	assert_int_equal(loaded, 1);
	assert_string_equal(R.ids, "s1 ops {\"a\":\"b\\n\"}");
	assert_int_equal(R.epoch, 2);
	close_node(&A);
}

static void test_a_name_is_one_nodes(void **state)
{
	char why[700] = "";
	open_ok(&A, "a");
	assert_null(open_as(&B, "a", why, sizeof(why)));
	assert_non_null(strstr(why, "another gateway runs as node a"));
	assert_false(A.taken);
	close_node(&A);
	open_ok(&B, "a"); /* at once */
	close_node(&B);
}

/* --- tokens ------------------------------------------------------------------------------ */
static void on_token(void *ctx, int err, const char *value, unsigned which)
{
	R.n++;
	R.err = err;
	R.which = which;
	snprintf(R.value, sizeof(R.value), "%s", value ? value : "-");
}

static void take(struct node *n, uint8_t first, uint8_t second)
{
	uint8_t h[2][32];
	memset(h[0], first, 32);
	memset(h[1], second, 32);
	memset(&R, 0, sizeof(R));
	td_store_token_take(n->s, (const uint8_t(*)[32])h, 2, on_token, NULL);
	wait_answer();
	assert_int_equal(R.err, 0);
}

static void test_a_token_is_taken_once(void **state)
{
	uint8_t h[32];
	open_ok(&A, "a");
	open_ok(&B, "b");
	memset(h, 7, sizeof(h));
	memset(&R, 0, sizeof(R));
	td_store_token_put(A.s, h, "x y\nz", 60000, on_done, NULL);
	wait_answer();
	assert_int_equal(R.err, 0);
	take(&B, 1, 2);
	assert_string_equal(R.value, "-");
	take(&B, 1, 7);
	assert_string_equal(R.value, "x y\nz");
	assert_int_equal(R.which, 1);
	take(&A, 7, 7);
	assert_string_equal(R.value, "-");
	close_node(&A);
	close_node(&B);
}

/* --- places and instances ------------------------------------------------------------------ */
static void on_admitted(void *ctx, int err, enum td_store_verdict v, const char *node)
{
	R.n++;
	R.err = err;
	R.verdict = v;
	snprintf(R.node, sizeof(R.node), "%s", node);
}

static enum td_store_verdict admit(struct node *n, const char *user, unsigned most, unsigned per_minute)
{
	const struct td_store_claim c = {
	    .user = user, .instance = "i-1", .user_max = most, .instance_max = 100, .user_per_minute = per_minute};
	memset(&R, 0, sizeof(R));
	td_store_admit(n->s, &c, on_admitted, NULL);
	wait_answer();
	assert_int_equal(R.err, 0);
	return R.verdict;
}

static void on_instances(void *ctx, int err, const struct td_store_instance *v, unsigned n)
{
	R.n++;
	R.count = n;
	R.ids[0] = 0;
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < v[i].n; k++)
			snprintf(R.ids + strlen(R.ids), sizeof(R.ids) - strlen(R.ids), "%u:%s=%s@%s ", i, v[i].v[k].key,
				 v[i].v[k].value, v[i].node);
}

static void ask(struct node *n)
{
	static const char *const ids[] = {"i-1", "i-2"};
	memset(&R, 0, sizeof(R));
	td_store_instances(n->s, ids, 2, on_instances, NULL);
	wait_answer();
	assert_int_equal(R.count, 2);
}

static void on_sums(void *ctx, int err, const unsigned *v, unsigned n)
{
	R.n++;
	R.ids[0] = 0;
	for (unsigned i = 0; i < n; i++)
		snprintf(R.ids + strlen(R.ids), sizeof(R.ids) - strlen(R.ids), "%u ", v[i]);
}

static void sums(struct node *n)
{
	static const char *const names[] = {"u", "w", "nobody"};
	memset(&R, 0, sizeof(R));
	td_store_counts(n->s, false, names, 3, on_sums, NULL);
	wait_answer();
}

static void test_places_count_on_all_nodes(void **state)
{
	const struct td_store_fact f[] = {{"version", "3.3"}};
	open_ok(&A, "a");
	open_ok(&B, "b");
	assert_int_equal(admit(&A, "u", 2, 0), TD_STORE_AWAY);
	td_store_instance_up(B.s, "i-1", f, 1);
	ask(&B); /* it has come there */
	assert_int_equal(admit(&A, "u", 2, 0), TD_STORE_ADMITTED);
	assert_string_equal(R.node, "b");
	assert_int_equal(admit(&B, "u", 2, 0), TD_STORE_ADMITTED);
	assert_int_equal(admit(&A, "u", 2, 0), TD_STORE_USER_MAX);
	assert_int_equal(admit(&A, "v", 2, 0), TD_STORE_ADMITTED);
	td_store_count(B.s, "u", "i-1", -1);
	assert_int_equal(admit(&B, "u", 2, 0), TD_STORE_ADMITTED);
	td_store_count_anew(A.s);
	ask(&A);
	assert_int_equal(admit(&B, "u", 2, 0), TD_STORE_ADMITTED);
	for (int i = 0; i < 3; i++)
		assert_int_equal(admit(i % 2 ? &A : &B, "w", 0, 3), TD_STORE_ADMITTED);
	assert_int_equal(admit(&A, "w", 0, 3), TD_STORE_USER_RATE);
	sums(&A);
	assert_string_equal(R.ids, "2 3 0 ");
	close_node(&B); /* with it goes the instance, and what it counted */
	sums(&A);
	assert_string_equal(R.ids, "0 1 0 ");
	assert_int_equal(admit(&A, "u", 2, 0), TD_STORE_AWAY);
	close_node(&A);
}

static void test_an_instance_is_at_one_node(void **state)
{
	const struct td_store_fact f[] = {{"version", "3.3"}, {"host", NULL}};
	open_ok(&A, "a");
	open_ok(&B, "b");
	td_store_instance_up(A.s, "i-2", f, 2);
	ask(&A);
	ask(&B);
	assert_string_equal(R.ids, "1:version=3.3@a ");
	td_store_instance_up(B.s, "i-2", f, 2);
	assert_true(t_until(&A.heard, 5000));
	assert_non_null(strstr(A.text, "moved"));
	td_store_instance_down(A.s, "i-2", 5); /* it is not A's any more */
	ask(&A);
	assert_string_equal(R.ids, "1:version=3.3@b ");
	td_store_instance_down(B.s, "i-2", 6);
	ask(&B);
	assert_string_equal(R.ids, "1:version=3.3@ 1:ping=6@ ");
	close_node(&A);
	close_node(&B);
}

static void on_said(void *ctx, int err, unsigned receivers)
{
	R.n++;
	R.err = err;
	R.count = receivers;
}

static void test_words(void **state)
{
	open_ok(&A, "a");
	open_ok(&B, "b");
	memset(&R, 0, sizeof(R));
	td_store_say(A.s, "b", "{\"x\":1}", 7, on_said, NULL);
	wait_answer();
	assert_int_equal(R.count, 1);
	assert_true(t_until(&B.heard, 5000));
	assert_string_equal(B.text, "{\"x\":1}");
	memset(&R, 0, sizeof(R));
	td_store_say(A.s, "nobody", "{}", 2, on_said, NULL);
	wait_answer();
	assert_int_equal(R.count, 0);
	memset(&R, 0, sizeof(R));
	td_store_say(A.s, NULL, "{}", 2, on_said, NULL);
	td_store_forget(A.s, NULL);
	B.heard = 0;
	assert_true(t_until(&B.heard, 5000));
	assert_int_equal(R.n, 0);
	close_node(&A);
	close_node(&B);
}

static void on_list(void *ctx, int err, const struct td_store_session *v, unsigned n, unsigned went)
{
	R.n++;
	R.went = went;
	R.ids[0] = 0;
	for (unsigned i = 0; i < n; i++)
		snprintf(R.ids + strlen(R.ids), sizeof(R.ids) - strlen(R.ids), "%s ", v[i].id);
}

static void list(bool past, unsigned skip, unsigned max)
{
	memset(&R, 0, sizeof(R));
	td_store_list(A.s, "ops", past, skip, max, on_list, NULL);
	wait_answer();
}

static void test_sessions_of_a_user_newest_first(void **state)
{
	open_ok(&A, "a");
	assert_int_equal(put(&A, "s1", 1, 10, 0), 0);
	assert_int_equal(put(&A, "s3", 1, 30, 0), 0);
	assert_int_equal(put(&A, "s2", 1, 20, 0), 0);
	list(false, 0, 10);
	assert_string_equal(R.ids, "s3 s2 s1 ");
	list(false, 1, 1);
	assert_string_equal(R.ids, "s2 ");
	assert_int_equal(R.went, 1);
	assert_int_equal(put(&A, "s3", 1, 30, 40), 0);
	list(false, 0, 10);
	assert_string_equal(R.ids, "s2 s1 ");
	list(true, 0, 10);
	assert_string_equal(R.ids, "s3 ");
	close_node(&A);
}

static int asked_raw;
static void on_raw_up(void *ctx)
{
	const struct tnl_redis_arg v[] = {{"DEL", 3}, {"tunneld:1:node:a", 16}};
	assert_int_equal(td_redis_send(*(struct td_redis **)ctx, v, 2, NULL, NULL), 0);
	const struct tnl_redis_arg kill[] = {{"CLIENT", 6}, {"KILL", 4}, {"TYPE", 4}, {"pubsub", 6}};
	assert_int_equal(td_redis_send(*(struct td_redis **)ctx, kill, 4, NULL, NULL), 0);
	asked_raw++;
}

static void on_raw_down(void *ctx, int err, const char *why) {}

/* As after a machine that stood still for a while: its name has expired, and another has taken it. */
static void test_who_has_lost_his_name_hears_of_it(void **state)
{
	static struct td_redis *raw;
	static const struct td_redis_cb raw_cb = {.up = on_raw_up, .down = on_raw_down};
	struct tnl_redis_url u;
	const char *fault;
	char why[700] = "";
	open_ok(&A, "a");
	assert_int_equal(tnl_redis_url_parse(redis_server.url, &u, &fault), 0);
	raw = td_redis_new(T, &(struct td_redis_opts){.url = &u}, &raw_cb, &raw);
	assert_true(t_until(&asked_raw, 5000));
	while (td_redis_queued(raw))
		t_turns(1);
	if (!open_as(&B, "a", why, sizeof(why))) /* while A's loop stands still */
		fail_msg("%s", why);
	assert_true(t_until(&A.taken, 10000));
	td_redis_free(raw);
	close_node(&A);
	close_node(&B);
}

/* --- the server goes ---------------------------------------------------------------------- */
static void test_a_server_that_forgot_everything_is_told_again(void **state)
{
	unsigned n;
	open_ok(&A, "a");
	open_ok(&B, "b");
	redis_kill();
	while (td_store_is_up(A.s) || td_store_is_up(B.s))
		t_turns(1);
	memset(&R, 0, sizeof(R));
	td_store_find(A.s, "s1", TD_STORE_LOOK, on_found, NULL);
	wait_answer();
	assert_int_equal(R.err, TNL_ETIMEOUT);
	A.announced = B.announced = 0;
	redis_start();
	assert_true(t_until(&A.announced, 10000));
	assert_true(t_until(&B.announced, 10000));
	assert_int_equal(put(&A, "s1", 1, 10, 0), 0);
	find(&B, "s1", TD_STORE_LOOK);
	assert_int_equal(R.where, TD_STORE_OTHER);
	int never = 0;
	td_store_look(B.s);
	td_store_look(B.s);
	for (int i = 0; td_store_nodes(B.s, &n) && n == 0 && i < 30; i++)
		t_until(&never, 100); /* its next heartbeat would be in 5 s */
	assert_int_equal(n, 1);
	assert_string_equal(td_store_nodes(B.s, &n)[0].name, "a");
	assert_string_equal(td_store_nodes(B.s, &n)[0].peer, "192.0.2.1:9");
	close_node(&A);
	close_node(&B);
}

static int setup(void **state)
{
	t_open();
	td_log_setup(getenv("TEST_DEBUG") ? TNL_LOG_DEBUG : TNL_LOG_ERROR, TD_LOG_TEXT);
	redis_start();
	return 0;
}

static int teardown(void **state)
{
	redis_end();
	t_close();
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_a_session_has_one_owner),
	    TEST(test_what_is_asked_for_twice_is_taken_once),
	    TEST(test_what_a_node_leaves_is_free),
	    TEST(test_a_session_without_its_home_is_united),
	    TEST(test_a_node_that_starts_again_has_its_sessions),
	    TEST(test_a_name_is_one_nodes),
	    TEST(test_a_token_is_taken_once),
	    TEST(test_places_count_on_all_nodes),
	    TEST(test_an_instance_is_at_one_node),
	    TEST(test_words),
	    TEST(test_sessions_of_a_user_newest_first),
	    TEST(test_who_has_lost_his_name_hears_of_it),
	    TEST(test_a_server_that_forgot_everything_is_told_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
