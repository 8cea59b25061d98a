/* The Redis client against a server of the test: greeting, order, time-outs, bounds, and that it comes back. */
#include "tests/daemon/base/td_test.h"
#include "lib/err.h"
#include "tunneld/net/conn.h"
#include "tunneld/net/redis.h"
#include <arpa/inet.h>
#include <sys/socket.h>

/* --- a server that answers as it is told ------------------------------------- */
static struct {
	int fd, accepted;
	ev_io io;
	struct td_conn *conn;
	char got[65536];
	size_t n;
	const char *first;			/* said to whatever comes first on a connection */
	const char *(*answer)(const char *got); /* to what has come so far; NULL: nothing yet */
} S;

static void say(const char *text)
{
	assert_int_equal(td_conn_write(S.conn, text, strlen(text)), strlen(text));
}

static void on_server_readable(void *ctx)
{
	ssize_t k;
	while (S.conn && (k = td_conn_read(S.conn, S.got + S.n, sizeof(S.got) - 1 - S.n)) > 0)
		S.n += (size_t)k;
	S.got[S.n] = 0;
	const char *a = S.answer ? S.answer(S.got) : NULL;
	if (a) {
		S.n = 0;
		say(a);
	}
}

static void on_server_closed(void *ctx, int err, const char *why)
{
	td_conn_free(S.conn);
	S.conn = NULL;
}

static void hang_up(void)
{
	td_conn_free(S.conn);
	S.conn = NULL;
}

static void on_server_nothing(void *ctx) {}

static void on_accept(struct ev_loop *ev, ev_io *w, int events)
{
	static const struct td_conn_cb cb = {.ready = on_server_nothing,
					     .readable = on_server_readable,
					     .writable = on_server_nothing,
					     .closed = on_server_closed};
	int fd = accept4(S.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd >= 0);
	hang_up();
	S.n = 0;
	S.accepted++;
	S.conn = td_conn_accepted(T, fd, NULL, 0, &cb, NULL);
}

static uint16_t server_open(const char *(*answer)(const char *))
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	memset(&S, 0, sizeof(S));
	S.answer = answer;
	S.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(S.fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(S.fd, 8), 0);
	assert_int_equal(getsockname(S.fd, (struct sockaddr *)&a, &len), 0);
	ev_io_init(&S.io, on_accept, S.fd, EV_READ);
	ev_io_start(T->ev, &S.io);
	return ntohs(a.sin_port);
}

static void server_close(void)
{
	hang_up();
	ev_io_stop(T->ev, &S.io);
	close(S.fd);
}

/* --- the client ------------------------------------------------------------------ */
static int ups, downs, answers, messages, last_err, last_down;
static char last_text[200], last_why[400];

static void on_up(void *ctx)
{
	ups++;
}

static void on_down(void *ctx, int err, const char *why)
{
	downs++;
	last_down = err;
	snprintf(last_why, sizeof(last_why), "%s", why);
}

static void on_message(void *ctx, const char *channel, const void *p, size_t n)
{
	messages++;
	snprintf(last_text, sizeof(last_text), "%s=%.*s", channel, (int)n, (const char *)p);
}

static void on_answer(void *ctx, int err, const struct tnl_redis_reply *r)
{
	answers++;
	last_err = err;
	if (r && r->str)
		snprintf(last_text, sizeof(last_text), "%s", r->str);
}

static struct td_redis *client(const char *before, uint16_t port, const char *after, const struct td_redis_opts *more)
{
	static const struct td_redis_cb cb = {.up = on_up, .down = on_down, .message = on_message};
	static struct tnl_redis_url u;
	char text[200];
	const char *fault;
	struct td_redis_opts o = more ? *more : (struct td_redis_opts){.nchannels = 0};
	snprintf(text, sizeof(text), "redis://%s127.0.0.1:%u%s", before, port, after);
	assert_int_equal(tnl_redis_url_parse(text, &u, &fault), 0);
	o.url = &u;
	ups = downs = answers = messages = last_err = last_down = 0;
	last_text[0] = last_why[0] = 0;
	struct td_redis *c = td_redis_new(T, &o, &cb, NULL);
	assert_non_null(c);
	return c;
}

static int send_text(struct td_redis *c, const char *text)
{
	const struct tnl_redis_arg v[] = {{"ECHO", 4}, {text, strlen(text)}};
	return td_redis_send(c, v, 2, on_answer, NULL);
}

static const char *pong(const char *got)
{
	return strstr(got, "PING\r\n") ? "+PONG\r\n" : NULL;
}

static const char *pong_or_echo(const char *got)
{
	return strstr(got, "PING\r\n") ? "+PONG\r\n" : strstr(got, "ECHO") ? "$2\r\nhi\r\n" : NULL;
}

static void test_greeting_then_what_waited(void **state)
{
	uint16_t port = server_open(pong_or_echo);
	struct td_redis *c = client("", port, "", NULL);
	assert_int_equal(send_text(c, "x"), 0);
	assert_int_equal(ups + answers, 0);
	assert_true(t_until(&answers, 5000));
	assert_int_equal(ups, 1);
	assert_string_equal(last_text, "hi");
	assert_int_equal(td_redis_queued(c), 0);
	td_redis_free(c);
	server_close();
}

static const char *auth_and_db(const char *got)
{
	if (!strstr(got, "PING\r\n"))
		return NULL;
	assert_non_null(strstr(got, "AUTH\r\n$2\r\nme\r\n$6\r\nse\nret\r\n"));
	assert_non_null(strstr(got, "SELECT\r\n$1\r\n3\r\n"));
	return "+OK\r\n+OK\r\n+PONG\r\n";
}

static void test_user_password_and_database(void **state)
{
	uint16_t port = server_open(auth_and_db);
	struct td_redis *c = client("me:se%0Aret@", port, "/3", NULL);
	assert_true(t_until(&ups, 5000));
	td_redis_free(c);
	server_close();
}

static const char *wrong_password(const char *got)
{
	return strstr(got, "PING\r\n") ? "-WRONGPASS invalid username-password pair\r\n-NOAUTH no\r\n" : NULL;
}

static void test_wrong_password_is_told_and_tried_again(void **state)
{
	uint16_t port = server_open(wrong_password);
	struct td_redis *c = client(":no@", port, "", NULL);
	assert_true(t_until(&downs, 5000));
	assert_int_equal(last_down, TNL_EAUTH);
	assert_non_null(strstr(last_why, "user or password is wrong"));
	downs = 0;
	assert_true(t_until(&downs, 5000));
	assert_int_equal(S.accepted, 2);
	assert_int_equal(ups, 0);
	td_redis_free(c);
	server_close();
}

static void test_what_was_sent_fails_and_what_waited_goes_on(void **state)
{
	uint16_t port = server_open(pong);
	struct td_redis *c = client("", port, "", NULL);
	assert_true(t_until(&ups, 5000));
	assert_int_equal(send_text(c, "one"), 0);
	t_turns(20);
	hang_up();
	assert_true(t_until(&answers, 5000));
	assert_int_equal(last_err, TNL_EIO);
	assert_int_equal(downs, 1);
	ups = answers = 0;
	S.answer = pong_or_echo;
	assert_int_equal(send_text(c, "two"), 0);
	assert_true(t_until(&answers, 5000));
	assert_int_equal(last_err, 0);
	assert_int_equal(ups, 1);
	td_redis_free(c);
	server_close();
}

static void test_no_answer_in_time_breaks_the_connection(void **state)
{
	uint16_t port = server_open(pong);
	struct td_redis *c = client("", port, "", &(struct td_redis_opts){.timeout_ns = 100 * TD_MS});
	assert_true(t_until(&ups, 5000));
	assert_int_equal(send_text(c, "x"), 0);
	assert_true(t_until(&answers, 5000));
	assert_int_equal(last_err, TNL_EIO);
	assert_int_equal(last_down, TNL_ETIMEOUT);
	td_redis_free(c);
	server_close();
}

static void test_no_server_in_time(void **state)
{
	uint16_t port = server_open(pong);
	server_close();
	struct td_redis *c = client("", port, "", &(struct td_redis_opts){.timeout_ns = 200 * TD_MS});
	assert_int_equal(send_text(c, "x"), 0);
	assert_true(t_until(&answers, 5000));
	assert_int_equal(last_err, TNL_ETIMEOUT);
	assert_true(downs > 0);
	td_redis_free(c);
}

static void test_what_waits_is_bounded(void **state)
{
	uint16_t port = server_open(pong);
	struct td_redis *c = client("", port, "", &(struct td_redis_opts){.queue_max = 2000});
	int rc = 0, n = 0;
	while ((rc = send_text(c, "0123456789")) == 0)
		n++;
	assert_int_equal(rc, TNL_ELIMIT);
	assert_in_range(n, 2, 40);
	assert_int_equal(td_redis_queued(c), n);
	td_redis_free(c);
	server_close();
}

static void test_forgotten_answers_come_to_nobody(void **state)
{
	uint16_t port = server_open(pong_or_echo);
	struct td_redis *c = client("", port, "", NULL);
	assert_int_equal(send_text(c, "x"), 0);
	td_redis_forget(c, NULL);
	assert_true(t_until(&ups, 5000));
	t_turns(50);
	while (td_redis_queued(c))
		t_turns(1);
	assert_int_equal(answers, 0);
	td_redis_free(c);
	server_close();
}

static const char *too_large(const char *got)
{
	return strstr(got, "PING\r\n") ? "+PONG\r\n*70000\r\n" : NULL;
}

static const char *nonsense(const char *got)
{
	return strstr(got, "PING\r\n") ? "HTTP/1.1 400 Bad Request\r\n\r\n" : NULL;
}

static const char *unasked(const char *got)
{
	return strstr(got, "PING\r\n") ? "+PONG\r\n+MORE\r\n" : NULL;
}

static void test_replies_that_may_not_be(void **state)
{
	static const char *(*const bad[])(const char *) = {too_large, nonsense, unasked};
	for (size_t i = 0; i < 3; i++) {
		uint16_t port = server_open(bad[i]);
		struct td_redis *c = client("", port, "", NULL);
		assert_true(t_until(&downs, 5000));
		td_redis_free(c);
		server_close();
	}
}

static const char *subscribed(const char *got)
{
	return strstr(got, "SUBSCRIBE\r\n$1\r\na\r\n$1\r\nb\r\n")
		   ? "+PONG\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"
		     "*3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$2\r\nhi\r\n"
		   : NULL;
}

static void test_subscriber(void **state)
{
	static const char *const channels[] = {"a", "b"};
	uint16_t port = server_open(subscribed);
	struct td_redis *c = client("", port, "", &(struct td_redis_opts){.channels = channels, .nchannels = 2});
	assert_true(t_until(&messages, 5000));
	assert_int_equal(ups, 1);
	assert_string_equal(last_text, "b=hi");
	messages = ups = 0;
	hang_up();
	assert_true(t_until(&messages, 5000)); /* subscribed again */
	assert_int_equal(ups, 1);
	td_redis_free(c);
	server_close();
}

static char sentinel_says[100];
static const char *sentinel_then_server(const char *got)
{
	if (strstr(got, "SENTINEL"))
		return sentinel_says;
	return strstr(got, "PING\r\n") ? "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n+PONG\r\n" : NULL;
}

static void test_sentinel_names_the_server(void **state)
{
	uint16_t port = server_open(sentinel_then_server);
	snprintf(sentinel_says, sizeof(sentinel_says), "*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%u\r\n",
		 snprintf(NULL, 0, "%u", port), port);
	struct td_redis *c = client("", port, "?sentinel=main", NULL);
	assert_true(t_until(&ups, 5000));
	assert_int_equal(S.accepted, 2);
	td_redis_reconnect(c, "test"); /* asks again */
	ups = 0;
	assert_true(t_until(&ups, 5000));
	assert_int_equal(S.accepted, 4);
	td_redis_free(c);
	snprintf(sentinel_says, sizeof(sentinel_says), "*-1\r\n");
	c = client("", port, "?sentinel=other", NULL);
	assert_true(t_until(&downs, 5000));
	assert_non_null(strstr(last_why, "knows no server of the name other"));
	td_redis_free(c);
	server_close();
}

static const char *replica(const char *got)
{
	return strstr(got, "PING\r\n") ? "*3\r\n$5\r\nslave\r\n:0\r\n*0\r\n+PONG\r\n" : NULL;
}

static void test_a_replica_is_not_taken(void **state)
{
	uint16_t port = server_open(replica);
	struct td_redis *c = client("", port, ",127.0.0.1", NULL);
	assert_true(t_until(&downs, 5000));
	assert_non_null(strstr(last_why, "is no master"));
	assert_int_equal(ups, 0);
	td_redis_free(c);
	server_close();
}

static int setup(void **state)
{
	t_open();
	td_log_setup(TNL_LOG_ERROR, TD_LOG_TEXT);
	return 0;
}

static int teardown(void **state)
{
	t_close();
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_greeting_then_what_waited),
	    TEST(test_user_password_and_database),
	    TEST(test_wrong_password_is_told_and_tried_again),
	    TEST(test_what_was_sent_fails_and_what_waited_goes_on),
	    TEST(test_no_answer_in_time_breaks_the_connection),
	    TEST(test_no_server_in_time),
	    TEST(test_what_waits_is_bounded),
	    TEST(test_forgotten_answers_come_to_nobody),
	    TEST(test_replies_that_may_not_be),
	    TEST(test_subscriber),
	    TEST(test_sentinel_names_the_server),
	    TEST(test_a_replica_is_not_taken),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
