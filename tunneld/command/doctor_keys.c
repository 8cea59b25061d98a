/* The credentials of a block: where they come from, whose they are, when they end. */
#include "tunneld/command/doctor.h"

#include "lib/enc.h"
#include "lib/http.h"
#include "lib/num.h"

#include <string.h>

#define EXPIRES_SOON 3600

struct keys {
	struct td_doctor *d;
	struct td_aws *aws;
	bool done, asked_who;
	enum td_credentials_state st;
	char id[132], why[512], account[160];
	struct td_http_client *who;
};

static void on_identity(void *ctx, const struct td_http_client_response *r)
{
	struct keys *k = ctx;
	struct tnl_json *j = r->err || r->status != 200 ? NULL : tnl_json_parse(r->body, r->body_len);
	const struct tnl_json *x =
	    tnl_json_get(tnl_json_get(j, "GetCallerIdentityResponse"), "GetCallerIdentityResult");
	const char *account = tnl_json_get_str(x, "Account"), *arn = tnl_json_get_str(x, "Arn");
	if (account)
		snprintf(k->account, sizeof(k->account), ", account %.20s, %.120s", account, arn ? arn : "");
	tnl_json_free(j);
	k->who = NULL;
	td_doctor_done(k->d, &k->done);
}

/* STS tells whose keys they are; a gateway of one's own has none. */
static void ask_who(struct keys *k, const struct tnl_sigv4_keys *keys)
{
	static const char body[] = "Action=GetCallerIdentity&Version=2011-06-15";
	static const char *const headers[][2] = {{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"},
						 {"Accept", "application/json"}};
	char url[420];
	struct tnl_url u;
	const char *fault;
	snprintf(url, sizeof(url), "%s/", td_aws_endpoint(k->aws, "sts"));
	if (tnl_url_parse(url, &u, &fault) != 0)
		return;
	struct td_http_client_opts o = {.tls = td_aws_tls(k->aws),
					.proxy = td_aws_proxy(k->aws, u.host),
					.timeout_ns = TD_DOCTOR_PROBE_NS};
	k->who = td_http_client_signed(k->d->loop, "POST", url, headers, TNL_COUNT(headers), body, sizeof(body) - 1,
				       keys, td_aws_region(k->aws), "sts", &o, on_identity, k);
}

static void on_keys(void *ctx, const struct tnl_sigv4_keys *keys, enum td_credentials_state st, const char *why)
{
	struct keys *k = ctx;
	k->st = st;
	snprintf(k->why, sizeof(k->why), "%s", why);
	if (keys) {
		snprintf(k->id, sizeof(k->id), "%s", keys->access_key_id);
		td_doctor_secret(k->d, keys->secret_access_key);
		td_doctor_secret(k->d, keys->session_token);
		if (k->asked_who)
			ask_who(k, keys);
	}
	if (!k->who)
		td_doctor_done(k->d, &k->done);
	k->asked_who = k->who != NULL;
}

static void tell_keys(struct td_doctor *d, const struct keys *k)
{
	char until[TNL_ISO_STR] = "";
	uint64_t ends = td_credentials_expire(k->aws);
	bool soon = ends && ends * 1000 < d->loop->wall_ms + EXPIRES_SOON * 1000ull;
	if (ends)
		tnl_iso_date(ends * 1000, until);
	td_doctor_row(d, "credentials", soon ? TD_DOCTOR_WARN : TD_DOCTOR_OK, 0,
		      soon ? "They end within the hour: those that do not renew themselves need new ones." : NULL,
		      "of %s, key %s%s%s%s", td_credentials_origin(k->aws), k->id, k->account, ends ? ", until " : "",
		      until);
}

bool td_doctor_credentials(struct td_doctor *d, struct td_aws *aws, bool whose)
{
	struct keys k = {.d = d, .aws = aws, .asked_who = whose};
	struct td_credentials_request *r = td_credentials_ask(aws, false, on_keys, &k);
	bool answered = r && td_doctor_wait(d, &k.done, TD_DOCTOR_PROBE_NS, "credentials");
	if (!answered && k.who) { /* the keys are there, only their owner is not known */
		td_http_client_cancel(k.who);
		answered = true;
	} else if (!answered && r) {
		td_credentials_cancel(r);
	}
	if (answered && k.id[0]) {
		tell_keys(d, &k);
		return true;
	}
	td_doctor_row(d, "credentials", TD_DOCTOR_FAIL, TD_EXIT_CREDENTIALS,
		      k.st == TD_CREDENTIALS_NEEDS_LOGIN
			  ? "Log in again, with the command that stands there."
			  : "Give keys, a profile or a role in [aws]; man 5 tunneld.ini lists them.",
		      "%s", answered ? k.why : "no answer within 5 s");
	return false;
}
