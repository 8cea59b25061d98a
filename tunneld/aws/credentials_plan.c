/* Where credentials come from, in the order of the SDKs: the configuration, the environment, web
 * identity, the profile (roles, SSO, keys, a process), the container, the instance. Only files
 * and the environment are read here; nothing is asked over the network. */
#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/aws/credentials_internal.h"
#include "tunneld/net/addr.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct maker {
	const struct td_aws *a;
	struct td_credentials_plan *p;
	const char *seen[TD_ROLES_MAX + 1];
	int nseen;
};

static enum td_credentials_state wrong(struct maker *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static enum td_credentials_state wrong(struct maker *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m->p->why, sizeof(m->p->why), fmt, ap);
	va_end(ap);
	return TD_CREDENTIALS_ERROR;
}

static const char *get(const struct maker *m, const char *profile, const char *key)
{
	return td_profiles_get(m->p->profiles, TD_PROFILE, profile, key);
}

static void set_origin(struct td_credentials_plan *p, const char *what, const char *name)
{
	snprintf(p->source, sizeof(p->source), "%s%.200s", what, name);
}

static void add_step(struct maker *m, const struct td_credentials_source *source, const struct td_role *role)
{
	struct td_credentials_step *s = &m->p->steps[m->p->nsteps++];

	s->source = source;
	if (role)
		s->role = *role;
}

/* Keys that lie ready. */
static void add_static(struct maker *m, const char *id, const char *secret, const char *token)
{
	m->p->id = id;
	m->p->secret = secret;
	m->p->token = token;
	add_step(m, &td_credentials_static, NULL);
}

static void start_static(struct td_credentials_run *r)
{
	const struct td_credentials_plan *p = r->plan;

	if (td_keys_set(&r->keys, p->id, p->secret, p->token, 0) != 0)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "out of memory");
	else
		td_credentials_run_have(r);
}

const struct td_credentials_source td_credentials_static = {.start = start_static};

/* --- without a profile ------------------------------------------------------------------- */

static enum td_credentials_state from_config(struct maker *m)
{
	const struct td_aws_config *c = &m->a->conf;

	if (!c->access_key_id && !c->secret_access_key)
		return TD_CREDENTIALS_NONE;
	if (!c->access_key_id || !c->secret_access_key)
		return wrong(
		    m,
		    "access_key_id and secret_access_key belong together: set both, or neither, in the configuration");
	add_static(m, c->access_key_id, c->secret_access_key, c->session_token);
	set_origin(m->p, "the configuration", "");
	return TD_CREDENTIALS_OK;
}

/* A line break that came along from a file, a blank from a table: what is signed with such a key is refused with words
 * that do not tell why. */
static bool keys_clean(struct maker *m)
{
	static const char *const names[] = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"};

	for (size_t i = 0; i < TNL_COUNT(names); i++) {
		const char *v = td_env_get(names[i]);

		for (const char *c = v; v && *c; c++) {
			if (*c > ' ' && *c < 0x7f)
				continue;
			wrong(m, "%s has %s %s: set it anew without", names[i],
			      *c == '\n' || *c == '\r' ? "a line break"
			      : *c == ' '	       ? "a space"
						       : "a character that no key has",
			      c[1] ? "in it" : "at its end");
			return false;
		}
	}
	return true;
}

static enum td_credentials_state from_env(struct maker *m)
{
	const char *id = td_env_get("AWS_ACCESS_KEY_ID"), *secret = td_env_get("AWS_SECRET_ACCESS_KEY");

	if (!id && !secret)
		return TD_CREDENTIALS_NONE;
	if (!id || !secret)
		return wrong(m, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together: set both, or neither");
	if (!keys_clean(m))
		return TD_CREDENTIALS_ERROR;
	add_static(m, id, secret, td_env_get("AWS_SESSION_TOKEN"));
	set_origin(m->p, "the environment", "");
	return TD_CREDENTIALS_OK;
}

static enum td_credentials_state from_web_identity_env(struct maker *m)
{
	const char *file = td_env_get("AWS_WEB_IDENTITY_TOKEN_FILE");
	struct td_role role = {.arn = td_env_get("AWS_ROLE_ARN"), .session_name = td_env_get("AWS_ROLE_SESSION_NAME")};

	if (!file)
		return TD_CREDENTIALS_NONE;
	if (!role.arn)
		return wrong(m, "AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN: set the role to assume");
	m->p->token_file = file;
	add_step(m, &td_credentials_web_identity, &role);
	set_origin(m->p, "the web identity token of the environment", "");
	return TD_CREDENTIALS_OK;
}

/* Plain http only to where a container's agent can be: loopback and the two link-local addresses. */
static bool container_url_ok(const char *url)
{
	struct tnl_url u;
	const char *fault;

	if (tnl_url_parse(url, &u, &fault) != 0 || u.user[0])
		return false;
	return strcmp(u.scheme, "https") == 0 ||
	       (strcmp(u.scheme, "http") == 0 &&
		(td_addr_host_is_loopback(u.host) || strcmp(u.host, "169.254.170.2") == 0 ||
		 strcmp(u.host, "169.254.170.23") == 0 || strcmp(u.host, "fd00:ec2::23") == 0));
}

static enum td_credentials_state from_container(struct maker *m)
{
	const char *relative = td_env_get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
		   *full = td_env_get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	struct td_credentials_plan *p = m->p;

	if (!relative && !full)
		return TD_CREDENTIALS_NONE;
	if (relative)
		snprintf(p->container_url, sizeof(p->container_url), "http://169.254.170.2%s", relative);
	else
		snprintf(p->container_url, sizeof(p->container_url), "%s", full);
	if ((relative && relative[0] != '/') || !container_url_ok(p->container_url))
		return wrong(m, "%s is not usable: it must be https, or http to loopback or the container's agent",
			     relative ? "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
				      : "AWS_CONTAINER_CREDENTIALS_FULL_URI");
	add_step(m, &td_credentials_container, NULL);
	p->container_token_file = td_env_get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	p->container_token = td_env_get("AWS_CONTAINER_AUTHORIZATION_TOKEN");
	set_origin(p, "the container's endpoint", "");
	return TD_CREDENTIALS_OK;
}

static enum td_credentials_state from_instance(struct maker *m)
{
	if (td_env_is_true(td_env_get("AWS_EC2_METADATA_DISABLED")))
		return TD_CREDENTIALS_NONE;
	add_step(m, &td_credentials_instance, NULL);
	set_origin(m->p, "the instance's metadata", "");
	return TD_CREDENTIALS_OK;
}

/* --- profiles ------------------------------------------------------------------------------ */

static enum td_credentials_state keys_of(struct maker *m, const char *profile)
{
	const char *id = get(m, profile, "aws_access_key_id"), *secret = get(m, profile, "aws_secret_access_key");

	if (!id && !secret)
		return TD_CREDENTIALS_NONE;
	if (!id || !secret)
		return wrong(m, "profile %s has only one of aws_access_key_id and aws_secret_access_key: set both",
			     profile);
	add_static(m, id, secret, get(m, profile, "aws_session_token"));
	return TD_CREDENTIALS_OK;
}

static enum td_credentials_state sso_of(struct maker *m, const char *profile)
{
	const char *session = get(m, profile, "sso_session");
	struct td_credentials_plan *p = m->p;

	p->sso_account = get(m, profile, "sso_account_id");
	p->sso_role = get(m, profile, "sso_role_name");
	p->sso_start_url = get(m, profile, "sso_start_url");
	p->sso_region = get(m, profile, "sso_region");
	p->sso_session = session;
	if (!session && !p->sso_start_url)
		return TD_CREDENTIALS_NONE;
	if (session && !p->sso_account && !p->sso_role)
		return TD_CREDENTIALS_NONE; /* a bearer token for other purposes */
	if (session) {
		if (!td_profiles_has(p->profiles, TD_PROFILE_SSO_SESSION, session))
			return wrong(
			    m,
			    "profile %s names sso_session %s, but there is no [sso-session %s]: run aws configure sso",
			    profile, session, session);
		p->sso_start_url = td_profiles_get(p->profiles, TD_PROFILE_SSO_SESSION, session, "sso_start_url");
		p->sso_region = td_profiles_get(p->profiles, TD_PROFILE_SSO_SESSION, session, "sso_region");
	}
	if (!p->sso_start_url || !p->sso_region || !p->sso_account || !p->sso_role)
		return wrong(m, "profile %s lacks %s: run aws configure sso --profile %s", profile,
			     !p->sso_start_url ? "sso_start_url"
			     : !p->sso_region  ? "sso_region"
			     : !p->sso_account ? "sso_account_id"
					       : "sso_role_name",
			     profile);
	add_step(m, &td_credentials_sso, NULL);
	return TD_CREDENTIALS_OK;
}

static enum td_credentials_state process_of(struct maker *m, const char *profile)
{
	m->p->command = get(m, profile, "credential_process");
	if (!m->p->command)
		return TD_CREDENTIALS_NONE;
	add_step(m, &td_credentials_process, NULL);
	return TD_CREDENTIALS_OK;
}

static enum td_credentials_state credential_source(struct maker *m, const char *profile, const char *what)
{
	enum td_credentials_state st;

	if (strcmp(what, "Environment") == 0)
		st = from_env(m);
	else if (strcmp(what, "EcsContainer") == 0)
		st = from_container(m);
	else if (strcmp(what, "Ec2InstanceMetadata") == 0)
		st = from_instance(m);
	else
		return wrong(
		    m,
		    "profile %s: credential_source is %.40s, but must be Environment, EcsContainer or Ec2InstanceMetadata",
		    profile, what);
	return st == TD_CREDENTIALS_NONE
		   ? wrong(m, "profile %s: credential_source is %s, but there are no credentials in it", profile, what)
		   : st;
}

static bool fill_role(struct maker *m, const char *profile, struct td_role *r)
{
	const char *seconds = get(m, profile, "duration_seconds");
	char *end;

	r->profile = profile;
	r->arn = get(m, profile, "role_arn");
	r->session_name = get(m, profile, "role_session_name");
	r->external_id = get(m, profile, "external_id");
	r->mfa_serial = get(m, profile, "mfa_serial");
	if (seconds) {
		unsigned long v = strtoul(seconds, &end, 10);

		if (*end || v < 900 || v > 43200) {
			wrong(m, "profile %s: duration_seconds is %.20s, but must be 900 to 43200", profile, seconds);
			return false;
		}
		r->duration_s = (unsigned)v;
	}
	return true;
}

static enum td_credentials_state from_profile(struct maker *m, const char *profile);

static enum td_credentials_state role_of(struct maker *m, const char *profile)
{
	const char *from = get(m, profile, "source_profile"), *what = get(m, profile, "credential_source");
	const char *file = get(m, profile, "web_identity_token_file");
	struct td_role role = {0};
	enum td_credentials_state st;

	if (!fill_role(m, profile, &role))
		return TD_CREDENTIALS_ERROR;
	if (file) {
		m->p->token_file = file;
		add_step(m, &td_credentials_web_identity, &role);
		return TD_CREDENTIALS_OK;
	}
	if (from && what)
		return wrong(m, "profile %s has source_profile and credential_source: remove one", profile);
	if (!from && !what)
		return wrong(m,
			     "profile %s has role_arn, but neither source_profile nor credential_source nor "
			     "web_identity_token_file",
			     profile);
	if (m->p->nsteps == TD_ROLES_MAX)
		return wrong(m, "profile %s: the chain of source profiles is longer than %d", profile, TD_ROLES_MAX);
	add_step(m, &td_credentials_assume_role, &role);
	if (what)
		return credential_source(m, profile, what);
	if (strcmp(from, profile) == 0) {
		st = keys_of(m, profile);
		return st == TD_CREDENTIALS_NONE
			   ? wrong(m, "profile %s is its own source_profile, but has no keys", profile)
			   : st;
	}
	if (!td_profiles_has(m->p->profiles, TD_PROFILE, from))
		return wrong(m, "profile %s names source_profile %s, which does not exist: check ~/.aws/config",
			     profile, from);
	st = from_profile(m, from);
	return st == TD_CREDENTIALS_NONE
		   ? wrong(m, "profile %s has no credentials (it is the source_profile of %s)", from, profile)
		   : st;
}

static enum td_credentials_state from_profile(struct maker *m, const char *profile)
{
	enum td_credentials_state st;
	const char *fault = td_profiles_fault(m->p->profiles, TD_PROFILE, profile);

	for (int i = 0; i < m->nseen; i++)
		if (strcmp(m->seen[i], profile) == 0)
			return wrong(m, "profile %s: its chain of source profiles comes back to itself", profile);
	if (m->nseen == TD_ROLES_MAX + 1)
		return wrong(m, "profile %s: the chain of source profiles is too long", profile);
	if (fault)
		return wrong(m, "%s", fault);
	m->seen[m->nseen++] = profile;
	m->p->profile = profile;
	if (get(m, profile, "role_arn"))
		return role_of(m, profile);
	if ((st = sso_of(m, profile)) == TD_CREDENTIALS_NONE && (st = keys_of(m, profile)) == TD_CREDENTIALS_NONE)
		st = process_of(m, profile);
	return st;
}

/* A profile that no file has, or that cannot be read, gives way to keys of the environment. */
static enum td_credentials_state lacking_profile(struct maker *m, const char *name, const char *fault)
{
	if (m->a->conf.profile && td_env_has_keys())
		return from_env(m);
	if (fault)
		return wrong(m, "%s", fault);
	if (!m->a->profile_named)
		return TD_CREDENTIALS_NONE;
	return wrong(m, "profile %s is in neither ~/.aws/config nor ~/.aws/credentials: check %s", name,
		     m->a->conf.profile ? "profile =" : "AWS_PROFILE");
}

static enum td_credentials_state from_named_profile(struct maker *m)
{
	const char *name = m->a->profile;
	enum td_credentials_state st;

	m->p->profiles = td_env_profiles(m->p->why, sizeof(m->p->why));
	if (!m->p->profiles)
		return TD_CREDENTIALS_ERROR;
	const char *fault = td_profiles_fault(m->p->profiles, TD_PROFILE, name);
	if (fault || !td_profiles_has(m->p->profiles, TD_PROFILE, name))
		return lacking_profile(m, name, fault);
	st = from_profile(m, name);
	if (st == TD_CREDENTIALS_OK)
		set_origin(m->p, "profile ", name);
	return st;
}

/* --- all of it -------------------------------------------------------------------------------- */

struct td_credentials_plan *td_credentials_plan_new(const struct td_aws *a)
{
	struct td_credentials_plan *p = tnl_calloc(1, sizeof(*p));
	struct maker m = {.a = a, .p = p};
	enum td_credentials_state st;

	if (!p)
		return NULL;
	st = from_config(&m);
	/* A profile named in the configuration says more than the environment of the process. */
	if (st == TD_CREDENTIALS_NONE && !a->conf.profile && (st = from_env(&m)) == TD_CREDENTIALS_NONE)
		st = from_web_identity_env(&m);
	if (st == TD_CREDENTIALS_NONE)
		st = from_named_profile(&m);
	if (st == TD_CREDENTIALS_NONE && (st = from_container(&m)) == TD_CREDENTIALS_NONE)
		st = from_instance(&m);
	if (st == TD_CREDENTIALS_NONE)
		snprintf(p->why, sizeof(p->why),
			 "no credentials: set access_key_id and secret_access_key, AWS_ACCESS_KEY_ID and "
			 "AWS_SECRET_ACCESS_KEY, or a profile (aws configure)");
	p->state = st;
	return p;
}

void td_credentials_plan_free(struct td_credentials_plan *p)
{
	if (!p)
		return;
	td_profiles_free(p->profiles);
	tnl_free(p);
}
