/* The bundle: a tar (ustar) of what somebody needs who helps from afar.
 *
 * Nothing secret is in it.  Of the configuration only sections and known keys are taken, without comments; the values
 * of keys that hold secrets are blanked, and so is what stands before the @ of a URL.  Then, in every member, each text
 * that is known to be a secret (of the configuration, of the files that it names, of the environment, of the
 * credentials and the session that were used) is blanked wherever it stands, and signatures and tokens of signed URLs
 * as well. */
#include "tunneld/command/daemons.h"
#include "tunneld/command/doctor.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/base/file.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define BLANK "(blanked)"
enum { BLOCK = 512, MEMBER_MAX = 64u << 20, CONFIG_MAX = 4 << 20 };

/* --- tar ------------------------------------------------------------------------------------------- */

static void put_number(char *at, size_t n, unsigned long long v)
{
	snprintf(at, n, "%0*llo", (int)n - 1, v);
}

static void put_member(struct tnl_buf *tar, const char *name, const struct tnl_buf *b)
{
	char h[BLOCK] = "";
	unsigned sum = 0;
	size_t n = tnl_buf_len(b);
	snprintf(h, 100, "tunneld-doctor/%s", name);
	put_number(h + 100, 8, 0600);
	put_number(h + 108, 8, 0);
	put_number(h + 116, 8, 0);
	put_number(h + 124, 12, n);
	put_number(h + 136, 12, (unsigned long long)time(NULL));
	memset(h + 148, ' ', 8);
	h[156] = '0';
	memcpy(h + 257, "ustar", 6);
	memcpy(h + 263, "00", 2);
	for (size_t i = 0; i < BLOCK; i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 8, "%06o", sum);
	tnl_buf_put(tar, h, BLOCK);
	tnl_buf_put(tar, tnl_buf_data(b), n);
	memset(h, 0, sizeof(h));
	tnl_buf_put(tar, h, (BLOCK - n % BLOCK) % BLOCK);
}

/* --- blanking --------------------------------------------------------------------------------------------- */

static bool matches_at(const char *p, size_t left, const char *word)
{
	size_t n = strlen(word);
	return n <= left && strncasecmp(p, word, n) == 0;
}

/* The secret that stands there: how long it is; 0: none. */
static size_t secret_at(const struct td_doctor *d, const char *p, size_t left)
{
	const char *s = (const char *)tnl_buf_data(&d->secrets), *end = s + tnl_buf_len(&d->secrets);
	size_t longest = 0;
	for (; s < end; s += strlen(s) + 1)
		if (strlen(s) > longest && strlen(s) <= left && memcmp(p, s, strlen(s)) == 0)
			longest = strlen(s);
	return longest;
}

/* Words behind which a secret stands, up to a blank or a delimiter. */
static size_t word_before_secret(const char *p, size_t left)
{
	static const char *const words[] = {"X-Amz-Signature=", "X-Amz-Security-Token=", "X-Amz-Credential=",
					    "Authorization: ",	"TokenValue\":\"",	 "Signature="};
	for (size_t i = 0; i < TNL_COUNT(words); i++)
		if (matches_at(p, left, words[i]))
			return strlen(words[i]);
	return 0;
}

static size_t length_of_value(const char *p, size_t left, const char *ends)
{
	size_t n = 0;
	while (n < left && p[n] && !strchr(ends, p[n]))
		n++;
	return n;
}

/* ://USER:PASSWORD@ */
static size_t user_info(const char *p, size_t left)
{
	if (!matches_at(p, left, "://"))
		return 0;
	size_t n = length_of_value(p + 3, left - 3, " \t\r\n\"'/?#@");
	return 3 + n < left && p[3 + n] == '@' ? n : 0;
}

static void scrub(const struct td_doctor *d, const char *p, size_t left, struct tnl_buf *out)
{
	while (left) {
		size_t n = secret_at(d, p, left), before = n ? 0 : word_before_secret(p, left);
		if (!n && !before && (n = user_info(p, left)) > 0)
			before = 3;
		else if (before)
			n = length_of_value(p + before, left - before, " \t\r\n\"'&,;");
		tnl_buf_put(out, p, before);
		if (n)
			tnl_buf_puts(out, BLANK);
		else if (!before)
			tnl_buf_putc(out, *p);
		size_t taken = n || before ? before + n : 1;
		p += taken;
		left -= taken;
	}
}

static void put_scrubbed(const struct td_doctor *d, struct tnl_buf *tar, const char *name, const struct tnl_buf *b)
{
	struct tnl_buf clean;
	tnl_buf_init(&clean, MEMBER_MAX);
	scrub(d, (const char *)tnl_buf_data(b), tnl_buf_len(b), &clean);
	put_member(tar, name, &clean);
	tnl_buf_fini(&clean);
}

/* --- the configuration ----------------------------------------------------------------------------------- */

static const char *trimmed(char *line)
{
	size_t n = strlen(line);
	while (n && isspace((unsigned char)line[n - 1]))
		line[--n] = '\0';
	return line + strspn(line, " \t");
}

/* Is it a key at all?  In one section it may be secret, in another not: then it is. */
static bool known_key(const char *key, bool *secret)
{
	struct td_option o;
	bool known = false;
	*secret = false;
	for (int i = 0; td_option_at(i, &o); i++) {
		if (strcasecmp(o.key, key) != 0)
			continue;
		known = true;
		*secret = *secret || o.secret;
	}
	return known;
}

/* Passwords in URLs. */
static void know_urls(struct td_doctor *d, const char *value)
{
	char info[400];
	for (const char *p = value; p && (p = strstr(p, "://")) != NULL; p += 3) {
		size_t n = user_info(p, strlen(p));
		if (!n || n >= sizeof(info))
			continue;
		snprintf(info, sizeof(info), "%.*s", (int)n, p + 3);
		const char *colon = strchr(info, ':');
		td_doctor_secret(d, colon ? colon + 1 : info);
	}
}

static void know_block(struct td_doctor *d, const struct td_aws_config *a)
{
	td_doctor_secret(d, a->secret_access_key);
	td_doctor_secret(d, a->session_token);
	know_urls(d, a->proxy);
}

static void know_keys(struct td_doctor *d, const struct td_access_key keys[TD_KEYS_MAX])
{
	for (int i = 0; i < TD_KEYS_MAX; i++)
		td_doctor_secret(d, keys[i].secret);
}

/* Of the configuration as it was read, with what the files hold that it names. */
static void know_config(struct td_doctor *d)
{
	const struct td_config *c = d->cfg;
	if (!c)
		return;
	know_block(d, &c->aws);
	know_block(d, &c->agent.aws);
	for (int i = 0; i < c->fwd.ntunnels; i++)
		know_block(d, &c->fwd.tunnels[i].aws);
	for (int i = 0; i < c->fwd.naliases; i++)
		know_block(d, &c->fwd.aliases[i].aws);
	for (int i = 0; i < c->gw.nusers; i++)
		know_keys(d, c->gw.users[i].keys);
	for (int i = 0; i < c->gw.ninstances; i++)
		know_keys(d, c->gw.instances[i].keys);
	know_urls(d, c->gw.store);
}

/* One line: a section, or a key that is known; nothing else goes out. */
static void take_line(struct td_doctor *d, char *raw, struct tnl_buf *out)
{
	const char *line = trimmed(raw), *eq = strchr(line, '=');
	char key[64];
	if (line[0] == '[') {
		tnl_buf_printf(out, "%.*s\n", (int)(strcspn(line, "]") + 1), line);
		return;
	}
	size_t n = eq ? (size_t)(eq - line) : 0;
	while (n && isspace((unsigned char)line[n - 1]))
		n--;
	if (!n || n >= sizeof(key) || line[0] == ';' || line[0] == '#')
		return;
	snprintf(key, sizeof(key), "%.*s", (int)n, line);
	bool secret, known = known_key(key, &secret);
	char *value = tnl_strdup(eq + 1 + strspn(eq + 1, " \t"));
	char *comment = value ? strstr(value, " ;") : NULL;
	if (comment)
		*comment = '\0';
	if (value && known) {
		if (secret)
			td_doctor_secret(d, trimmed(value));
		know_urls(d, value);
		tnl_buf_printf(out, "%s = %s\n", key, secret ? BLANK : trimmed(value));
	}
	tnl_free_wiped(value, value ? strlen(value) : 0);
}

static void take_config(struct td_doctor *d, struct tnl_buf *out)
{
	size_t n = 0;
	char *text = d->path ? td_file_read(d->path, CONFIG_MAX, 0, &n, NULL) : NULL;
	tnl_buf_puts(out, "; Without comments, unknown keys and secrets.\n");
	for (char *save = NULL, *line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save))
		take_line(d, line, out);
	tnl_free_wiped(text, n);
}

/* What the clients of AWS read there. */
static void know_environment(struct td_doctor *d)
{
	static const char *const names[] = {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
					    "AWS_CONTAINER_AUTHORIZATION_TOKEN"};
	static const char *const proxies[] = {"HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
					      "http_proxy",  "ALL_PROXY",   "all_proxy"};
	for (size_t i = 0; i < TNL_COUNT(names); i++)
		td_doctor_secret(d, getenv(names[i]));
	for (size_t i = 0; i < TNL_COUNT(proxies); i++)
		if (getenv(proxies[i]))
			know_urls(d, getenv(proxies[i]));
}

/* --- all of it ------------------------------------------------------------------------------------------------- */

static void take_events(void *ctx, char *reply)
{
	struct tnl_buf *b = ctx;
	struct tnl_json *j = tnl_json_parse(reply, strlen(reply));
	tnl_json_each(e, tnl_json_get(j, "events")) {
		const char *time = tnl_json_get_str(e, "time"), *level = tnl_json_get_str(e, "level");
		const char *text = tnl_json_get_str(e, "text");
		tnl_buf_printf(b, "%s %s %s\n", time ? time : "", level ? level : "", text ? text : "");
	}
	tnl_json_free(j);
}

static void put_all(struct td_doctor *d, struct tnl_buf *tar)
{
	struct tnl_buf config, b;
	struct td_daemons_query q = {.file = d->path};
	tnl_buf_init(&config, MEMBER_MAX);
	know_environment(d);
	know_config(d);
	take_config(d, &config); /* first: it tells what is secret elsewhere */
	tnl_buf_init(&b, MEMBER_MAX);
	td_doctor_json(d, &b);
	put_scrubbed(d, tar, "doctor.json", &b);
	tnl_buf_reset(&b);
	tnl_buf_printf(&b, "[%s]", tnl_buf_len(&d->status) ? tnl_buf_str(&d->status) : "");
	put_scrubbed(d, tar, "status.json", &b);
	put_scrubbed(d, tar, "configuration.ini", &config);
	tnl_buf_reset(&b);
	if (d->path)
		(void)td_daemons_ask(&q, "events", take_events, &b);
	put_scrubbed(d, tar, "log.txt", &b);
	tnl_buf_reset(&b);
	tnl_buf_puts(&b, "tunneld " TUNNELD_VERSION "\n");
	put_member(tar, "version.txt", &b);
	tnl_buf_fini(&b);
	tnl_buf_fini(&config);
}

int td_doctor_bundle(struct td_doctor *d, const char *path)
{
	static const char end[2 * BLOCK];
	struct tnl_buf tar;
	tnl_buf_init(&tar, 256u << 20);
	put_all(d, &tar);
	tnl_buf_put(&tar, end, sizeof(end));
	bool failed = tar.failed || td_file_write(path, tnl_buf_data(&tar), tnl_buf_len(&tar), 0) != 0;
	if (failed)
		fprintf(stderr, "tunneld doctor: cannot write %s: %s\n", path,
			tar.failed ? "it is too large" : strerror(errno));
	else
		fprintf(stderr, "tunneld doctor: wrote %s; look into it before you send it\n", path);
	tnl_buf_fini(&tar);
	return failed ? TD_EXIT_RUNTIME : 0;
}
