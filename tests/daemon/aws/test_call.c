/* Signed calls with their verdicts: what is tried again, and what is said of a refusal. */
#include "tests/daemon/aws/aws_test.h"
#include "lib/num.h"
#include "tunneld/net/conn.h"
#include "tunneld/net/listen.h"

static struct {
	int done, err, status;
	enum td_credentials_state cred;
	char type[96], text[600], value[100];
} R;

static void on_reply(void *ctx, const struct td_aws_reply *r)
{
	R.done++;
	R.err = r->err;
	R.status = r->status;
	R.cred = r->cred;
	snprintf(R.type, sizeof(R.type), "%s", r->type);
	snprintf(R.text, sizeof(R.text), "%s", r->text ? r->text : "");
	snprintf(R.value, sizeof(R.value), "%s",
		 tnl_json_get_str(r->json, "Value") ? tnl_json_get_str(r->json, "Value") : "");
}

static void call(struct td_aws *a, int attempts)
{
	memset(&R, 0, sizeof(R));
	F.calls = 0;
	assert_non_null(
	    td_aws_json(a, "ssm", "AmazonSSM.StartSession", "{\"Target\":\"i-1\"}", 16, attempts, on_reply, NULL));
	assert_int_equal(R.done, 0);
	assert_true(t_until(&R.done, 20000));
	t_turns(3);
	assert_int_equal(R.done, 1);
}

static const char *next_type, *next_message;
static int next_status, fail_first;

static void api(struct td_request *r, const char *method, const char *target, const char *body)
{
	const struct tnl_http_head *h = td_request_head(r);

	assert_string_equal(body, "{\"Target\":\"i-1\"}");
	assert_true(tnl_http_has_token(h, "x-amz-target", "AmazonSSM.StartSession"));
	assert_true(tnl_http_has_token(h, "content-type", "application/x-amz-json-1.1"));
	assert_true(signed_with(r, "AKID", "the-secret", "ssm") || signed_with(r, "NEW", "new-secret", "ssm"));
	if (next_type && F.calls <= fail_first)
		reply_json(r, next_status, "{\"__type\":\"%s\",\"message\":\"%s\"}", next_type, next_message);
	else
		reply_json(r, 200, "{\"Value\":\"fine\"}");
}

static void refuse_unseen(struct td_request *r, const char *method, const char *target, const char *body)
{
	reply_json(r, next_status, "{\"__type\":\"%s\",\"message\":\"%s\"}", next_type, next_message);
}

static void refuse_old_secret(struct td_request *r, const char *method, const char *target, const char *body)
{
	if (signed_with(r, "AKID", "the-secret", "ssm"))
		reply_json(r, 200, "{\"Value\":\"fine\"}");
	else
		refuse_unseen(r, method, target, body);
}

static struct td_aws *api_open(void)
{
	F.handle = api;
	next_type = NULL;
	next_message = "because";
	next_status = 400;
	fail_first = 1000;
	setenv("AWS_ENDPOINT_URL_SSM", F.url, 1);
	return aws_new(CONF(KEYS));
}

static void test_call(void **state)
{
	struct td_aws *a = api_open();

	call(a, 3);
	assert_int_equal(R.err, 0);
	assert_int_equal(R.status, 200);
	assert_string_equal(R.value, "fine");
	assert_int_equal(F.calls, 1);
	td_aws_free(a);
}

static void test_call_errors(void **state)
{
	struct td_aws *a = api_open();

	/* final at once, type without its prefix, text as it came */
	next_type = "com.amazonaws.ssm#TargetNotConnected";
	call(a, 3);
	assert_int_equal(R.err, TNL_EREFUSED);
	assert_string_equal(R.type, "TargetNotConnected");
	assert_string_equal(R.text, "because");
	assert_int_equal(F.calls, 1);
	/* throttling and 5xx are tried again */
	next_type = "ThrottlingException";
	fail_first = 2;
	call(a, 3);
	assert_int_equal(R.err, 0);
	assert_int_equal(F.calls, 3);
	call(a, 2);
	assert_int_equal(R.err, TNL_EREFUSED);
	assert_string_equal(R.type, "ThrottlingException");
	assert_int_equal(F.calls, 2);
	next_type = "InternalServerError";
	next_status = 500;
	fail_first = 1;
	call(a, 2);
	assert_int_equal(R.err, 0);
	td_aws_free(a);
	/* nobody there */
	setenv("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:1", 1);
	a = aws_new(CONF(KEYS, .region = S("eu-west-2")));
	call(a, 2);
	assert_int_equal(R.err, TNL_EUNREACH);
	assert_non_null(strstr(R.text, "127.0.0.1:1"));
	td_aws_free(a);
}

static void test_no_credentials(void **state)
{
	setenv("AWS_ENDPOINT_URL_SSM", F.url, 1);
	struct td_aws *a = aws_new(NULL);

	call(a, 3);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_int_equal(R.cred, TD_CREDENTIALS_NONE);
	assert_non_null(strstr(R.text, "no credentials: set"));
	assert_int_equal(F.calls, 0);
	td_aws_free(a);
}

static void test_refused_keys(void **state)
{
	struct td_aws *a = api_open();

	next_type = "UnrecognizedClientException";
	call(a, 3);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_int_equal(R.cred, TD_CREDENTIALS_ERROR);
	assert_string_equal(
	    R.text,
	    "the access key of the configuration is not known: check access_key_id, and that the key is active (because)");
	assert_int_equal(F.calls, 2); /* once more with what a new search gave */
	next_type = "InvalidSignatureException";
	call(a, 3);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_string_equal(R.text,
			    "the signature was refused: check the secret access key of the configuration (because)");
	next_message = "Credential should be scoped to a valid region, not 'eu-west-1'.";
	call(a, 3);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_null(strstr(R.text, "secret"));
	assert_non_null(strstr(R.text, "the region eu-west-1 is not the endpoint's"));
	next_message = "because";
	next_type = "ExpiredTokenException";
	call(a, 3);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_int_equal(R.cred, TD_CREDENTIALS_NEEDS_LOGIN);
	assert_string_equal(R.text, "the credentials of the configuration have expired: renew them there (because)");
	assert_int_equal(F.calls, 1);
	assert_int_equal(td_credentials_last(a, NULL), TD_CREDENTIALS_NEEDS_LOGIN);
	td_aws_free(a);
	/* not allowed is no matter of the keys */
	a = aws_new(CONF(KEYS));
	next_type = "AccessDeniedException";
	call(a, 3);
	assert_int_equal(R.err, TNL_EREFUSED);
	assert_int_equal(td_credentials_last(a, NULL), TD_CREDENTIALS_OK);
	td_aws_free(a);
}

/* Keys of a role come with a token: that it is missing is said, and not that the key is unknown. */
static void test_missing_session_token(void **state)
{
	td_aws_free(api_open());
	F.handle = refuse_unseen;
	next_type = "UnrecognizedClientException";
	next_message = "The security token included in the request is invalid.";
	struct td_aws *a = aws_new(CONF(.access_key_id = S("ASIAX"), .secret_access_key = S("the-secret")));
	call(a, 1);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_non_null(strstr(R.text, "its session token is missing"));
	assert_non_null(strstr(R.text, next_message));
	assert_null(strstr(R.text, "is active"));
	td_aws_free(a);
}

/* A new secret under the same id: the refused signature makes the file be read again. */
static void test_a_new_secret_is_fetched(void **state)
{
	static const char file[] = "[default]\naws_access_key_id = AKID\naws_secret_access_key = %s\n";
	write_file(".aws/credentials", file, "old-secret");
	td_aws_free(api_open());
	struct td_aws *a = aws_new(NULL);
	F.handle = refuse_unseen;
	next_type = "InvalidSignatureException";
	call(a, 1);
	assert_int_equal(R.err, TNL_EAUTH);
	write_file(".aws/credentials", file, "the-secret");
	F.handle = refuse_old_secret;
	call(a, 1);
	assert_int_equal(R.err, 0);
	assert_int_equal(F.calls, 2);
	td_aws_free(a);
}

/* Keys that were exchanged in the file: the next refusal fetches them, and the call goes through. */
static void test_expired_keys_are_fetched_again(void **state)
{
	struct td_aws *a;

	write_file(
	    ".aws/credentials",
	    "[default]\naws_access_key_id = AKID\naws_secret_access_key = the-secret\naws_session_token = old\n");
	td_aws_free(api_open());
	a = aws_new(NULL);
	call(a, 1);
	assert_int_equal(R.err, 0);
	write_file(".aws/credentials", "[default]\naws_access_key_id = NEW\naws_secret_access_key = new-secret\n");
	next_type = "ExpiredTokenException";
	fail_first = 1;
	call(a, 1);
	assert_int_equal(R.err, 0);
	assert_int_equal(F.calls, 2);
	assert_non_null(strstr(F.auth[0], "Credential=AKID/"));
	assert_non_null(strstr(F.auth[1], "Credential=NEW/"));
	td_aws_free(a);
}

static const char *good_secret;

static void api_of_secret(struct td_request *r, const char *method, const char *target, const char *body)
{
	if (signed_with(r, "AKID", good_secret, "ssm"))
		reply_json(r, 200, "{\"Value\":\"fine\"}");
	else
		reply_json(r, 400, "{\"__type\":\"InvalidSignatureException\",\"message\":\"no\"}");
}

static void write_secret(const char *secret)
{
	good_secret = secret;
	write_file(".aws/credentials", "[default]\naws_access_key_id = AKID\naws_secret_access_key = %s\n", secret);
}

/* The same key id with another secret: the refusal of the signature fetches it; a reload does so ahead of any. */
static void test_another_secret_is_fetched(void **state)
{
	F.handle = api_of_secret;
	setenv("AWS_ENDPOINT_URL_SSM", F.url, 1);
	write_secret("the-secret");
	struct td_aws *a = aws_new(NULL);
	call(a, 1);
	assert_int_equal(R.err, 0);
	assert_int_equal(F.calls, 1);
	write_secret("new-secret");
	call(a, 1);
	assert_int_equal(R.err, 0);
	assert_int_equal(F.calls, 2);
	write_secret("third-secret");
	td_aws_reload(T);
	call(a, 1);
	assert_int_equal(R.err, 0);
	assert_int_equal(F.calls, 1);
	remove_file(".aws/credentials"); /* what is there holds while nothing else is */
	td_aws_reload(T);
	call(a, 1);
	assert_int_equal(R.err, 0);
	assert_int_equal(F.calls, 1);
	td_aws_free(a);
}

static void test_cancel(void **state)
{
	struct td_aws *a = api_open();
	struct td_aws_call *c;

	memset(&R, 0, sizeof(R));
	for (int turns = 0; turns < 6; turns++) {
		c = td_aws_json(a, "ssm", "AmazonSSM.StartSession", "{\"Target\":\"i-1\"}", 16, 1, on_reply, NULL);
		t_turns(turns);
		if (R.done)
			break;
		td_aws_call_cancel(c);
	}
	t_turns(20);
	assert_true(R.done <= 1);
	td_aws_free(a);
}

/* The same, but nobody has exchanged them yet: a person is wanted, and then it goes on by itself. */
static void test_expired_keys_are_waited_for(void **state)
{
	struct td_aws *a;
	const char *why;

	write_file(
	    ".aws/credentials",
	    "[default]\naws_access_key_id = AKID\naws_secret_access_key = the-secret\naws_session_token = old\n");
	td_aws_free(api_open());
	a = aws_new(NULL);
	next_type = "ExpiredTokenException";
	call(a, 1);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_int_equal(R.cred, TD_CREDENTIALS_NEEDS_LOGIN);
	assert_string_equal(R.text, "the credentials of profile default have expired: renew them there (because)");
	assert_int_equal(td_credentials_last(a, &why), TD_CREDENTIALS_NEEDS_LOGIN);
	assert_true(why[0] && strncmp(why, R.text, strlen(why)) == 0);
	next_type = NULL;
	call(a, 1);
	assert_int_equal(F.calls, 0); /* they are not even tried */
	write_file(".aws/credentials", "[default]\naws_access_key_id = NEW\naws_secret_access_key = new-secret\n");
	for (int i = 0; i < 200 && td_credentials_last(a, NULL) != TD_CREDENTIALS_OK; i++) {
		int never = 0;

		t_until(&never, 50);
	}
	assert_int_equal(td_credentials_last(a, NULL), TD_CREDENTIALS_OK);
	call(a, 1);
	assert_int_equal(R.err, 0);
	td_aws_free(a);
}

/* --- an answer that no HTTP server of ours would give ---------------------------------------------------- */

static struct {
	struct td_listener *l;
	char url[64], port[8];
	const char *answer;
	char seen[600];
	struct td_conn *c;
} RAW;

static void raw_readable(void *ctx)
{
	char b[2000];
	ssize_t n = td_conn_read(RAW.c, b, sizeof(b) - 1);

	if (n <= 0)
		return;
	b[n] = 0;
	snprintf(RAW.seen, sizeof(RAW.seen), "%.500s", b);
	td_conn_write(RAW.c, RAW.answer, strlen(RAW.answer));
	td_conn_shutdown(RAW.c);
}

static void raw_closed(void *ctx, int err, const char *why)
{
	td_conn_free(RAW.c);
	RAW.c = NULL;
}

static void raw_accept(void *ctx, int fd, const struct td_addr *peer)
{
	static const struct td_conn_cb cb = {.readable = raw_readable, .closed = raw_closed};

	if (RAW.c)
		td_conn_free(RAW.c);
	RAW.c = td_conn_accepted(T, fd, NULL, 0, &cb, NULL);
}

static void raw_open(const char *answer)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[200], name[TD_ADDR_STR];

	memset(&RAW, 0, sizeof(RAW));
	RAW.answer = answer;
	RAW.l = td_listen(T, &a, raw_accept, NULL, why, sizeof(why));
	assert_non_null(RAW.l);
	td_listener_addr(RAW.l, &a);
	snprintf(RAW.url, sizeof(RAW.url), "http://%s", td_addr_str(&a, name));
}

static void raw_close(void)
{
	if (RAW.c)
		td_conn_free(RAW.c);
	td_listener_free(RAW.l);
	t_turns(3);
}

static void clock_case(int64_t off, const char *want)
{
	static const char body[] = "{\"__type\":\"InvalidSignatureException\",\"message\":\"no\"}";
	char answer[600], date[64];
	time_t t = (time_t)((int64_t)time(NULL) - off);
	struct tm tm;
	struct td_aws *a;

	gmtime_r(&t, &tm);
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	snprintf(answer, sizeof(answer),
		 "HTTP/1.1 400 Bad Request\r\nDate: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", date,
		 strlen(body), body);
	raw_open(answer);
	setenv("AWS_ENDPOINT_URL_SSM", RAW.url, 1);
	a = aws_new(CONF(KEYS));
	call(a, 1);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_string_equal(R.type, "InvalidSignatureException");
	if (!strstr(R.text, want))
		fail_msg("\"%s\" lacks \"%s\"", R.text, want);
	td_aws_free(a);
	raw_close();
}

static void test_clock_off(void **state)
{
	clock_case(3600 + 20, "this machine's clock is 60 minutes fast: set it (timedatectl set-ntp true)");
	clock_case(-1810, "this machine's clock is 30 minutes slow: set it");
	clock_case(0, "check the secret access key");
}

/* A refusal of channel creation in the words of its XML, and of the keys with cause and cure; what is no such body is
 * not taken apart. */
static void xml_case(const char *body, int err, const char *type, const char *text)
{
	char answer[800];
	struct td_aws *a;

	snprintf(answer, sizeof(answer), "HTTP/1.1 403 Forbidden\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
		 strlen(body), body);
	raw_open(answer);
	setenv("AWS_ENDPOINT_URL_SSM", RAW.url, 1);
	a = aws_new(CONF(KEYS));
	call(a, 1);
	assert_int_equal(R.err, err);
	assert_string_equal(R.type, type);
	if (!strstr(R.text, text))
		fail_msg("\"%s\" lacks \"%s\"", R.text, text);
	td_aws_free(a);
	raw_close();
}

static void test_xml_refusals(void **state)
{
	xml_case("<AccessDeniedException><Message>not yours</Message></AccessDeniedException>", TNL_EREFUSED,
		 "AccessDeniedException", "not yours");
	xml_case("<InvalidSignatureException><Message>no</Message></InvalidSignatureException>", TNL_EAUTH,
		 "InvalidSignatureException", "check the secret access key");
	xml_case("<html><body>no</body></html>", TNL_EPROTO, "", "that is not AWS's API");
	xml_case("<Oops><Message>cut", TNL_EREFUSED, "", "");
	xml_case("<<Message>x</Message>", TNL_EREFUSED, "", "");
	xml_case("<Message></Message>", TNL_EREFUSED, "Message", "");
	xml_case("<A", TNL_EREFUSED, "", "");
}

/* Pages and redirections, whatever their status: where, what, and that it is no refusal. */
static void no_api_case(const char *head, const char *body, const char *want)
{
	char answer[800];
	struct td_aws *a;

	snprintf(answer, sizeof(answer), "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", head,
		 strlen(body), body);
	raw_open(answer);
	setenv("AWS_ENDPOINT_URL_SSM", RAW.url, 1);
	a = aws_new(CONF(KEYS));
	call(a, 1);
	assert_int_equal(R.err, TNL_EPROTO);
	if (!strstr(R.text, want) || !strstr(R.text, RAW.url) || !strstr(R.text, "not AWS's API"))
		fail_msg("\"%s\" lacks \"%s\"", R.text, want);
	td_aws_free(a);
	raw_close();
}

static void test_what_is_no_api(void **state)
{
	static const char page[] = "<!DOCTYPE html><html><body>Sign in</body></html>";

	no_api_case("200 OK\r\nContent-Type: text/html; charset=utf-8", page, "status 200, text/html");
	no_api_case("403 Forbidden\r\nContent-Type: text/html", "blocked", "status 403, text/html");
	no_api_case("503 Busy\r\nContent-Type: TEXT/HTML", page, "status 503, TEXT/HTML");
	no_api_case("302 Found\r\nLocation: http://login.example/?a", "",
		    "status 302, no type, and sends to http://login.example/?a");
	no_api_case("404 Not Found", "<html>x", "status 404");
}

/* http:// to a port of TLS: nothing, an alert, or the word of a server that noticed. */
static void test_tls_where_http_was_said(void **state)
{
	static const char *const answers[] = {
	    "", "\x15\x03\x01", "\x15\x03\x01\n\n",
	    "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
	    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>The plain HTTP "
	    "request was sent to HTTPS port</html>"};
	for (size_t i = 0; i < TNL_COUNT(answers); i++) {
		raw_open(answers[i]);
		setenv("AWS_ENDPOINT_URL_SSM", RAW.url, 1);
		struct td_aws *a = aws_new(CONF(KEYS));
		call(a, 1);
		assert_true(R.err != 0 && R.err != TNL_EREFUSED);
		if (!strstr(R.text, "speaks TLS: say https://") || !strstr(R.text, RAW.url + 7))
			fail_msg("%zu: \"%s\"", i, R.text);
		td_aws_free(a);
		raw_close();
	}
}

static void test_proxy_refuses(void **state)
{
	char proxy[700];
	struct td_aws *a;

	raw_open("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
	snprintf(proxy, sizeof(proxy), "http://me:hush@%s", RAW.url + 7);
	setenv("AWS_ENDPOINT_URL_SSM", "https://ssm.invalid", 1);
	a = aws_new(CONF(KEYS, .proxy = proxy));
	call(a, 1);
	assert_int_equal(R.err, TNL_EUNREACH);
	assert_non_null(strstr(RAW.seen, "CONNECT ssm.invalid:443 HTTP/1.1"));
	assert_non_null(strstr(RAW.seen, "Proxy-Authorization: Basic bWU6aHVzaA=="));
	if (!strstr(R.text, "refused ssm.invalid:443: 407") ||
	    !strstr(R.text, "user or password of the proxy is wrong"))
		fail_msg("%s", R.text);
	assert_null(strstr(R.text, "hush"));
	td_aws_free(a);
	raw_close();
}

static void test_throttled(void **state)
{
	static const char *const yes[] = {"Throttling",
					  "ThrottlingException",
					  "ThrottledException",
					  "RequestThrottled",
					  "RequestThrottledException",
					  "TooManyRequestsException",
					  "RequestLimitExceeded",
					  "BandwidthLimitExceeded",
					  "LimitExceededException",
					  "ProvisionedThroughputExceededException",
					  "TransactionInProgressException",
					  "EC2ThrottledException",
					  "SlowDown",
					  "PriorRequestNotComplete"};
	static const char *const no[] = {"", "TargetNotConnected", "AccessDeniedException", "ExpiredToken", "Slow"};

	for (size_t i = 0; i < TNL_COUNT(yes); i++)
		if (!td_aws_throttled(yes[i]))
			fail_msg("%s is throttling", yes[i]);
	for (size_t i = 0; i < TNL_COUNT(no); i++)
		if (td_aws_throttled(no[i]))
			fail_msg("%s is no throttling", no[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_call),
	    T_CASE(test_call_errors),
	    T_CASE(test_no_credentials),
	    T_CASE(test_refused_keys),
	    T_CASE(test_missing_session_token),
	    T_CASE(test_a_new_secret_is_fetched),
	    T_CASE(test_expired_keys_are_fetched_again),
	    T_CASE(test_another_secret_is_fetched),
	    T_CASE(test_cancel),
	    T_CASE(test_expired_keys_are_waited_for),
	    T_CASE(test_clock_off),
	    T_CASE(test_xml_refusals),
	    T_CASE(test_what_is_no_api),
	    T_CASE(test_tls_where_http_was_said),
	    T_CASE(test_proxy_refuses),
	    T_CASE(test_throttled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
