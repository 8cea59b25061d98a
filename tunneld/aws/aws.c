/* One [aws] block with all that it was resolved to. Equal blocks share one object. */
#include "tunneld/aws/internal.h"
#include "lib/alloc.h"
#include "tunneld/base/log.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct tnl_list all = {&all, &all};

/* --- equal blocks --------------------------------------------------------------------------- */

static void put_field(struct tnl_buf *b, const char *s)
{
	tnl_buf_printf(b, "%d:%s\n", s ? (int)strlen(s) : -1, s ? s : "");
}

/* Path, time and size: a file that was replaced makes another environment at the next reload. */
static void put_stamp(struct tnl_buf *b, const char *path)
{
	struct stat st;

	put_field(b, path);
	if (path && stat(path, &st) == 0)
		tnl_buf_printf(b, "%lld.%ld %lld %llu\n", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
			       (long long)st.st_size, (unsigned long long)st.st_ino);
}

/* Of all files that the block was made from. */
static char *make_stamps(const struct td_aws_config *c)
{
	char *config = td_env_file("AWS_CONFIG_FILE", ".aws/config"), *stamps;
	const char *path;
	struct tnl_buf b;

	tnl_buf_init(&b, 1 << 20);
	for (int i = 0; (path = td_aws_config_file(c, i)) != NULL; i++)
		put_stamp(&b, path);
	put_stamp(&b, td_env_get("AWS_CA_BUNDLE"));
	put_stamp(&b, config);
	tnl_free(config);
	stamps = b.failed ? NULL : tnl_strdup(tnl_buf_str(&b));
	tnl_buf_fini(&b);
	return stamps;
}

static struct td_aws *find_equal(const struct td_loop *l, const struct td_aws_config *c, const char *stamps)
{
	tnl_list_foreach(it, &all) {
		struct td_aws *a = tnl_container_of(it, struct td_aws, node);
		if (a->loop == l && strcmp(a->stamps, stamps) == 0 && td_aws_config_same(&a->conf, c))
			return a;
	}
	return NULL;
}

/* --- making and freeing ------------------------------------------------------------------------ */

static int choose_profile(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap)
{
	const char *name = a->conf.profile ? a->conf.profile : td_env_get("AWS_PROFILE");

	if (!name)
		name = td_env_get("AWS_DEFAULT_PROFILE");
	a->profile_named = name != NULL;
	a->profile = tnl_strdup(name ? name : "default");
	if (!a->profile)
		return TNL_ENOMEM;
	const char *fault = td_profiles_fault(p, TD_PROFILE, a->profile);
	if (fault)
		snprintf(why, cap, "%s", fault);
	else if (a->conf.profile && !td_profiles_has(p, TD_PROFILE, name))
		snprintf(why, cap,
			 "profile %s is in neither ~/.aws/config nor ~/.aws/credentials: check profile =", name);
	else
		return 0;
	/* Whoever has keys elsewhere can do without. */
	bool keys = td_env_has_keys() || (a->conf.access_key_id && a->conf.secret_access_key);
	if (keys)
		td_warn("aws", NULL, "%s; the keys of the %s are used", why,
			a->conf.access_key_id ? "configuration" : "environment");
	return keys ? 0 : TNL_ECONF;
}

bool td_aws_has_profile(const char *name)
{
	char why[400];
	struct td_profiles *p = td_env_profiles(why, sizeof(why));
	bool has = p && td_profiles_has(p, TD_PROFILE, name);

	td_profiles_free(p);
	return has;
}

void td_aws_each_profile(void (*fn)(void *ctx, const char *name), void *ctx)
{
	char why[400];
	struct td_profiles *p = td_env_profiles(why, sizeof(why));
	if (p)
		td_profiles_each(p, TD_PROFILE, fn, ctx);
	td_profiles_free(p);
}

static int resolve(struct td_aws *a, char *why, size_t cap)
{
	struct td_profiles *p = td_env_profiles(why, cap);
	int rc = TNL_ECONF;

	if (!p)
		return rc;
	if (why[0])
		td_warn("aws", NULL, "%s: left out, with the profile that it stands in", why);
	rc = choose_profile(a, p, why, cap);
	if (rc == 0)
		rc = td_aws_endpoints_init(a, p, why, cap);
	if (rc == 0)
		rc = td_aws_proxy_init(a, why, cap);
	if (rc == 0)
		rc = td_aws_tls_init(a, p, why, cap);
	td_profiles_free(p);
	return rc;
}

struct td_aws *td_aws_new(struct td_loop *l, const struct td_aws_config *c, char *why, size_t cap)
{
	char *stamps = make_stamps(c);
	struct td_aws *a = stamps ? find_equal(l, c, stamps) : NULL;

	if (a) {
		tnl_free(stamps);
		return td_aws_ref(a);
	}
	snprintf(why, cap, "out of memory");
	a = stamps ? tnl_calloc(1, sizeof(*a)) : NULL;
	if (!a) {
		tnl_free(stamps);
		return NULL;
	}
	a->refs = 1;
	a->loop = l;
	a->stamps = stamps;
	tnl_list_init(&a->node);
	td_credentials_init(a);
	td_http_kept_init(&a->kept, l);
	td_aws_config_copy(&a->conf, c);
	if (resolve(a, why, cap) != 0) {
		td_aws_free(a);
		return NULL;
	}
	tnl_list_foreach(it, &all) {
		const struct td_aws *old = tnl_container_of(it, struct td_aws, node);
		for (enum td_service s = TD_SERVICE_SSM; old->loop == l && s <= TD_SERVICE_SSMMESSAGES; s++)
			td_addresses_follow(a->endpoints[s], old->endpoints[s]);
	}
	tnl_list_push_back(&all, &a->node);
	return a;
}

struct td_aws *td_aws_ref(struct td_aws *a)
{
	a->refs++;
	return a;
}

void td_aws_free(struct td_aws *a)
{
	if (!a || --a->refs > 0)
		return;
	tnl_list_remove(&a->node);
	td_credentials_fini(a);
	if (a->forget)
		a->forget(a);
	td_http_kept_fini(&a->kept);
	tnl_tls_ctx_free(a->tls);
	td_aws_config_clear(&a->conf);
	tnl_free(a->stamps);
	tnl_free(a->profile);
	tnl_free(a->region);
	tnl_free(a->suffix);
	tnl_free(a->dual_suffix);
	td_aws_endpoints_fini(a);
	tnl_free(a->no_proxy);
	tnl_wipe(&a->proxy, sizeof(a->proxy));
	tnl_wipe(&a->http_proxy, sizeof(a->http_proxy));
	tnl_free(a);
}

void td_aws_reload(struct td_loop *l)
{
	tnl_list_foreach(it, &all) {
		struct td_aws *a = tnl_container_of(it, struct td_aws, node);
		if (a->loop == l)
			td_credentials_renew(a);
	}
}

bool td_aws_same_service(struct td_aws *a, struct td_aws *b)
{
	return a == b ||
	       (strcmp(a->region, b->region) == 0 &&
		td_addresses_meet(a->endpoints[TD_SERVICE_SSM], b->endpoints[TD_SERVICE_SSM]) &&
		td_addresses_meet(a->endpoints[TD_SERVICE_SSMMESSAGES], b->endpoints[TD_SERVICE_SSMMESSAGES]));
}

const char *td_aws_region(const struct td_aws *a)
{
	return a->region;
}

struct tnl_tls_ctx *td_aws_tls(struct td_aws *a)
{
	return a->tls;
}
