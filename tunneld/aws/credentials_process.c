/* credential_process: a command of the user's that prints credentials. */
#include "tunneld/aws/credentials_internal.h"
#include "tunneld/base/capture.h"
#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#define OUTPUT_MAX 65536
#define TIME_LIMIT (60 * TD_SEC)

static bool is_version_1(const struct tnl_json *j)
{
	int64_t version;

	return tnl_json_int(tnl_json_get(j, "Version"), &version) && version == 1;
}

static const char *output_fault(const struct tnl_json *j)
{
	return !j ? "it is no JSON" : !is_version_1(j) ? "Version is not 1" : td_keys_fault(j);
}

static void on_captured(void *ctx, const struct td_captured *c)
{
	struct td_credentials_run *r = ctx;
	struct tnl_json *j = NULL;

	r->mine = NULL;
	if (c->late)
		td_credentials_run_fail(
		    r, TD_CREDENTIALS_ERROR,
		    "credential_process of profile %.80s took longer than 60 s: run it by hand to see why",
		    r->plan->profile);
	else if (c->status != 0)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"credential_process of profile %.80s failed (%s %d): run it by hand to see why",
					r->plan->profile, WIFSIGNALED(c->status) ? "signal" : "exit code",
					WIFSIGNALED(c->status) ? WTERMSIG(c->status) : WEXITSTATUS(c->status));
	else if ((j = tnl_json_parse(c->out, c->n)) == NULL || !is_version_1(j) ||
		 td_keys_parse(&r->keys, j, "SessionToken") != 0)
		td_credentials_run_fail(
		    r, TD_CREDENTIALS_ERROR,
		    "credential_process of profile %.80s printed no usable credentials: it must print JSON with "
		    "Version 1, AccessKeyId and SecretAccessKey: %s",
		    r->plan->profile, output_fault(j));
	else if (r->keys.expires_s && r->keys.expires_s <= td_aws_now(r->a))
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"credential_process of profile %.80s printed credentials that have expired",
					r->plan->profile);
	else
		td_credentials_run_have(r);
	tnl_json_free(j);
}

static void start_process(struct td_credentials_run *r)
{
	r->mine = td_capture_start(r->a->loop, r->plan->command, OUTPUT_MAX, TIME_LIMIT, on_captured, r);
	if (!r->mine)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"credential_process of profile %.80s cannot be started: %s", r->plan->profile,
					strerror(errno));
}

static void cancel_process(struct td_credentials_run *r)
{
	td_capture_cancel(r->mine);
	r->mine = NULL;
}

const struct td_credentials_source td_credentials_process = {.start = start_process, .cancel = cancel_process};
