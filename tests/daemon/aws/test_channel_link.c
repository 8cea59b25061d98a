/* Opening a channel's link: signed or not, the token frame, refusals, and being cancelled at each step. */
#include "tests/daemon/aws/aws_test.h"
#include "tunneld/aws/channel_link.h"

static struct peer {
	struct td_wslink *w;
	char frame[1000], token[100], client_id[100];
	int frames;
	bool was_signed, has_id;
} P;

static struct result {
	int done;
	struct td_wslink *w;
	bool dialed;
	int status;
	char why[600];
} R;

static void on_frame(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	const char *fault;
	struct tnl_open o;
	assert_int_equal(op, TNL_WS_TEXT);
	assert_int_equal(tnl_open_parse(p, n, &o, &fault), 0);
	snprintf(P.token, sizeof(P.token), "%s", o.token);
	snprintf(P.client_id, sizeof(P.client_id), "%s", o.client_id ? o.client_id : "");
	P.has_id = o.request_id && strlen(o.request_id) == 36;
	tnl_open_fini(&o);
	P.frames++;
}

static void on_peer_closed(void *ctx, int err, uint16_t code, int status, const char *why)
{
	td_wslink_free(P.w);
	P.w = NULL;
}

static const struct td_wslink_cb peer_cb = {.message = on_frame, .closed = on_peer_closed};

static void upgrade(struct td_request *r, const char *method, const char *target, const char *body)
{
	const struct td_wslink_opts o = {.max_message = 4096};
	assert_true(td_request_is_upgrade(r));
	P.was_signed = signed_with(r, "AKID", "the-secret", "ssmmessages");
	if (!P.was_signed)
		assert_null(tnl_http_get(td_request_head(r), "authorization", NULL));
	P.w = td_request_upgrade(r, &o, &peer_cb, NULL);
}

static void refuse(struct td_request *r, const char *method, const char *target, const char *body)
{
	td_request_reply(r, 403, "text/plain", NULL, 0, "not you", 7);
}

static void never(struct td_request *r, const char *method, const char *target, const char *body) {}

static void on_link(void *ctx, const struct td_channel_link_result *r)
{
	assert_ptr_equal(ctx, &R);
	R.done++;
	R.w = r->w;
	R.dialed = r->dialed;
	R.status = r->http_status;
	snprintf(R.why, sizeof(R.why), "%s", r->why);
}

static struct td_channel_link *start(struct td_aws *a, const char *query, bool must_sign)
{
	char url[200], id[] = "client-1", token[] = "the-token";
	struct tnl_open open = {.token = token, .client_id = id};
	snprintf(url, sizeof(url), "ws%.60s/v1/data-channel/s-1?role=publish_subscribe%s", F.url + 4, query);
	struct td_channel_link_opts o = {.url = url, .must_sign = must_sign, .open = &open};
	memset(&R, 0, sizeof(R));
	memset(&P, 0, sizeof(P));
	struct td_channel_link *c = td_channel_link_open(a, &o, on_link, &R);
	assert_non_null(c);
	assert_int_equal(R.done, 0);
	memset(url, 'x', sizeof(url) - 1); /* copied */
	memset(token, 'x', sizeof(token) - 1);
	return c;
}

static void expect_link(struct td_aws *a, const char *query, bool must_sign, bool is_signed)
{
	F.handle = upgrade;
	start(a, query, must_sign);
	assert_true(t_until(&R.done, 5000));
	if (!R.w)
		fail_msg("no link: %s", R.why);
	assert_true(t_until(&P.frames, 5000));
	assert_string_equal(P.token, "the-token");
	assert_string_equal(P.client_id, "client-1");
	assert_true(P.has_id);
	assert_int_equal(P.was_signed, is_signed);
	td_wslink_free(R.w);
	td_wslink_free(P.w);
	t_turns(3);
	assert_int_equal(R.done, 1);
	assert_int_equal(P.frames, 1);
}

static void expect_failure(struct td_aws *a, bool must_sign, bool dialed, int status, const char *why)
{
	start(a, "", must_sign);
	assert_true(t_until(&R.done, 5000));
	assert_null(R.w);
	assert_int_equal(R.dialed, dialed);
	assert_int_equal(R.status, status);
	if (!strstr(R.why, why))
		fail_msg("\"%s\" lacks \"%s\"", R.why, why);
	t_turns(3);
	assert_int_equal(R.done, 1);
}

static void signed_or_not(void **state)
{
	struct td_aws *a = aws_new(CONF(KEYS));
	expect_link(a, "", true, true);
	expect_link(a, "", false, true);
	expect_link(a, "&X-Amz-Signature=abc", false, false); /* signed already */
	td_aws_free(a);
	a = aws_new(NULL); /* no keys: the token is the authority */
	expect_link(a, "", false, false);
	F.calls = 0;
	expect_failure(a, true, false, 0, "no credentials");
	assert_int_equal(F.calls, 0);
	td_aws_free(a);
}

static void refused(void **state)
{
	struct td_aws *a = aws_new(CONF(KEYS));
	F.handle = refuse;
	expect_failure(a, true, true, 403, "not you");
	td_http_server_stop_listening(F.h);
	expect_failure(a, true, true, 0, "refused");
	td_aws_free(a);
}

static void malformed(void **state)
{
	struct td_aws *a = aws_new(CONF(KEYS));
	strcpy(F.url, "http:/nowhere");
	start(a, "", false);
	assert_true(t_until(&R.done, 5000));
	assert_null(R.w);
	assert_false(R.dialed);
	assert_true(R.why[0] != '\0');
	td_aws_free(a);
}

static void cancelled(void **state)
{
	struct td_aws *a = aws_new(CONF(KEYS));
	int none = 0, fds = t_open_fds();
	td_channel_link_cancel(start(a, "", true)); /* before the keys */
	td_channel_link_cancel(start(a, "&X-Amz-Signature=abc", false));
	t_turns(5);
	assert_int_equal(F.calls, 0);
	F.handle = never;
	struct td_channel_link *c = start(a, "", true);
	assert_true(t_until(&F.calls, 5000)); /* the upgrade is under way */
	td_channel_link_cancel(c);
	t_until(&none, 50);
	assert_int_equal(R.done, 0);
	assert_int_equal(t_open_fds(), fds);
	td_channel_link_cancel(NULL);
	td_aws_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T_CASE(signed_or_not), T_CASE(refused), T_CASE(malformed),
					   T_CASE(cancelled)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
