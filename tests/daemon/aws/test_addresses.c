/* Several addresses of one service: whose turn it is, what moves a call to the next one, and what is remembered. */
#include "tests/daemon/aws/aws_test.h"
#include "tunneld/aws/addresses.h"
#include "tunneld/net/listen.h"

static struct {
	int done, err, status;
	char endpoint[100];
} R;

static void on_reply(void *ctx, const struct td_aws_reply *r)
{
	R.done++;
	R.err = r->err;
	R.status = r->status;
	snprintf(R.endpoint, sizeof(R.endpoint), "%s", r->endpoint ? r->endpoint : "");
}

static void call(struct td_aws *a, int attempts)
{
	memset(&R, 0, sizeof(R));
	assert_non_null(td_aws_json(a, "ssm", "AmazonSSM.StartSession", "{}", 2, attempts, on_reply, NULL));
	assert_true(t_until(&R.done, 20000));
	t_turns(3);
	assert_int_equal(R.done, 1);
}

/* --- whose turn it is ------------------------------------------------------------------ */

static struct td_addresses *three(void)
{
	struct td_addresses *a;
	assert_int_equal(td_addresses_new(&a, T, "https://a.example/, https://b.example:8443,https://c.example"), 0);
	assert_int_equal(td_addresses_count(a), 3);
	assert_string_equal(td_addresses_url(a, 0), "https://a.example");
	assert_string_equal(td_addresses_url(a, 1), "https://b.example:8443");
	return a;
}

static void test_turns(void **state)
{
	struct td_addresses *a = three();

	assert_int_equal(td_addresses_next(a, 0), 0);
	assert_int_equal(td_addresses_next(a, 1), 1);
	assert_int_equal(td_addresses_next(a, 7), TD_ENDPOINTS_MAX);
	td_addresses_failed(a, 0, "gone");
	assert_int_equal(td_addresses_next(a, 0), 1);
	td_addresses_worked(a, 1);
	assert_int_equal(td_addresses_in_use(a), 1);
	assert_int_equal(td_addresses_moves(a), 1);
	assert_string_equal(td_addresses_trouble(a, 0), "gone");
	/* The one that worked last is first, also when the others are well again. */
	T->now += 100 * TD_SEC;
	assert_int_equal(td_addresses_next(a, 0), 1);
	assert_int_equal(td_addresses_next(a, 2), 0);
	/* A late answer does not bring the one before back while this one is well. */
	td_addresses_worked(a, 0);
	assert_int_equal(td_addresses_in_use(a), 1);
	td_addresses_free(a);
}

static void test_all_failed(void **state)
{
	struct td_addresses *a = three();

	td_addresses_failed(a, 1, "x");
	T->now += 100 * TD_MS;
	td_addresses_failed(a, 2, "x");
	T->now += 100 * TD_MS;
	td_addresses_failed(a, 0, "x");
	assert_int_equal(td_addresses_next(a, 0), 1); /* the oldest */
	assert_int_equal(td_addresses_next(a, 2), 2);
	td_addresses_failed(a, 1, "x");
	assert_int_equal(td_addresses_next(a, 0), 2);
	td_addresses_free(a);
}

/* Passed over for longer each time, within bounds, until it has worked. */
static void test_back_off(void **state)
{
	struct td_addresses *a = three();
	uint64_t longest = 0;

	td_addresses_failed(a, 1, "x"); /* in turn there is another one always */
	td_addresses_worked(a, 1);
	for (int i = 0; i < 40; i++) {
		uint64_t from = T->now;
		td_addresses_failed(a, 0, "x");
		assert_int_equal(td_addresses_next(a, 1), 1);
		assert_int_equal(td_addresses_next(a, 2), 2); /* passed over */
		while (td_addresses_next(a, 2) == 2)
			T->now += 100 * TD_MS;
		assert_int_equal(td_addresses_next(a, 2), 0); /* its turn may come again */
		assert_in_range(T->now - from, 2 * TD_SEC - 100 * TD_MS, 60 * TD_SEC + 200 * TD_MS);
		longest = TNL_MAX(longest, T->now - from);
	}
	assert_true(longest > 10 * TD_SEC);
	td_addresses_worked(a, 0);
	td_addresses_failed(a, 0, "x");
	T->now += 4100 * TD_MS;
	assert_int_equal(td_addresses_next(a, 2), 0); /* short again */
	td_addresses_free(a);
}

static void test_find(void **state)
{
	struct td_addresses *a = three(), *b;

	assert_int_equal(td_addresses_find(a, "wss://A.example/v1/data-channel/x?role=y"), 0);
	assert_int_equal(td_addresses_find(a, "wss://a.example:443/"), 0);
	assert_int_equal(td_addresses_find(a, "wss://b.example/"), TD_ENDPOINTS_MAX);
	assert_int_equal(td_addresses_find(a, "nonsense"), TD_ENDPOINTS_MAX);
	assert_int_equal(td_addresses_new(&b, T, "https://d.example,https://b.example:8443"), 0);
	assert_true(td_addresses_meet(a, b));
	td_addresses_follow(b, a); /* it has not moved */
	assert_int_equal(td_addresses_in_use(b), 0);
	td_addresses_failed(a, 0, "x");
	td_addresses_worked(a, 1);
	td_addresses_follow(b, a);
	assert_int_equal(td_addresses_in_use(b), 1);
	td_addresses_free(b);
	assert_int_equal(td_addresses_new(&b, T, "https://d.example"), 0);
	assert_false(td_addresses_meet(a, b));
	td_addresses_free(b);
	td_addresses_free(a);
	assert_int_equal(td_addresses_new(&b, T, "a,b,c,d,e,f,g,h"), 0);
	td_addresses_free(b);
	assert_int_equal(td_addresses_new(&b, T, "a,b,c,d,e,f,g,h,i"), TNL_ETOOBIG);
	assert_null(b);
}

/* --- calls ---------------------------------------------------------------------------- */

static int came; /* connections to the one that is no good */

static void hang_up(void *ctx, int fd, const struct td_addr *peer)
{
	came++;
	close(fd);
}

static struct td_listener *dead_open(char url[64])
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[200], name[TD_ADDR_STR];
	struct td_listener *l = td_listen(T, &a, hang_up, NULL, why, sizeof(why));

	assert_non_null(l);
	td_listener_addr(l, &a);
	snprintf(url, 64, "http://%s", td_addr_str(&a, name));
	came = 0;
	return l;
}

static int status_of_localhost;

static void serve(struct td_request *r, const char *method, const char *target, const char *body)
{
	static const char *const again[][2] = {{"Retry-After", "30"}};
	size_t n = 0;
	const char *host = tnl_http_get(td_request_head(r), "host", &n);
	bool local = n > 9 && strncmp(host, "localhost", 9) == 0;

	if (local && status_of_localhost == 503)
		td_request_reply(r, 503, "application/json", again, 1, "{}", 2);
	else
		reply_json(r, local ? status_of_localhost : 200, "{\"__type\":\"%s\"}",
			   local ? "TargetNotConnected" : "");
}

static struct td_aws *lists(const char *first, const char *second)
{
	char list[200];

	F.handle = serve;
	F.calls = 0;
	snprintf(list, sizeof(list), "%s,%s", first, second);
	return aws_new(CONF(KEYS, .ssm_endpoint = list));
}

static void test_next_one(void **state)
{
	char dead[64];
	struct td_listener *l = dead_open(dead);
	struct td_aws *a = lists(dead, F.url);

	assert_string_equal(td_aws_endpoint(a, "ssm"), dead);
	call(a, 1);
	assert_int_equal(R.err, 0);
	assert_string_equal(R.endpoint, F.url);
	assert_int_equal(came, 1);
	assert_string_equal(td_aws_endpoint(a, "ssm"), F.url);
	assert_string_equal(td_aws_endpoint(a, "ssmmessages"), F.url); /* the same list, the same memory */
	assert_int_equal(td_aws_endpoint_moves(a, "ssm"), 1);
	for (int i = 0; i < 5; i++) {
		call(a, 1);
		assert_int_equal(R.err, 0);
	}
	assert_int_equal(came, 1); /* nobody went there again */
	assert_int_equal(F.calls, 6);
	td_aws_free(a);
	td_listener_free(l);
}

static void test_all_of_them(void **state)
{
	char dead[64], dead2[64];
	struct td_listener *l = dead_open(dead), *m = dead_open(dead2);
	struct td_aws *a = lists(dead, dead2);

	call(a, 1);
	assert_int_equal(R.err, TNL_ETRUNC == R.err ? TNL_ETRUNC : TNL_EUNREACH);
	assert_int_equal(came, 2); /* each once */
	call(a, 2);
	assert_int_equal(came, 6); /* also while they are passed over: there is no other */
	td_aws_free(a);
	td_listener_free(l);
	td_listener_free(m);
}

static void test_statuses(void **state)
{
	char local[64];
	struct td_aws *a;

	snprintf(local, sizeof(local), "http://localhost%s", strrchr(F.url, ':'));
	status_of_localhost = 503;
	a = lists(local, F.url);
	call(a, 1);
	assert_int_equal(R.status, 200);
	assert_string_equal(R.endpoint, F.url);
	assert_int_equal(F.calls, 2);
	td_aws_free(a);
	status_of_localhost = 400; /* an answer of the service */
	a = lists(local, F.url);
	call(a, 1);
	assert_int_equal(R.status, 400);
	assert_int_equal(F.calls, 1);
	assert_string_equal(td_aws_endpoint(a, "ssm"), local);
	td_aws_free(a);
}

/* What a WebSocket found out is known to the calls. */
static void test_other_failures(void **state)
{
	char dead[64], url[120];
	struct td_listener *l = dead_open(dead);
	struct td_aws *a = lists(dead, F.url);

	snprintf(url, sizeof(url), "ws%s/v1/data-channel/x", dead + 4);
	td_aws_url_failed(a, url, "no sign of life");
	call(a, 1);
	assert_int_equal(R.err, 0);
	assert_int_equal(came, 0);
	td_aws_free(a);
	td_listener_free(l);
}

static void test_new_list(void **state)
{
	char dead[64], list[200];
	struct td_listener *l = dead_open(dead);
	struct td_aws *a = lists(dead, F.url), *b;

	call(a, 1);
	snprintf(list, sizeof(list), "%s,https://new.example,%s", dead, F.url);
	b = aws_new(CONF(KEYS, .ssm_endpoint = list));
	assert_string_equal(td_aws_endpoint(b, "ssm"), F.url);
	assert_true(td_aws_same_service(a, b));
	assert_true(td_aws_has_endpoint(b, "ssmmessages", dead));
	assert_string_equal(td_aws_endpoint_at(b, "ssm", 1), "https://new.example");
	assert_null(td_aws_endpoint_at(b, "ssm", 3));
	td_aws_free(a);
	td_aws_free(b);
	td_listener_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_turns),	   T_CASE(test_all_failed),	T_CASE(test_back_off),
	    T_CASE(test_find),	   T_CASE(test_next_one),	T_CASE(test_all_of_them),
	    T_CASE(test_statuses), T_CASE(test_other_failures), T_CASE(test_new_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
