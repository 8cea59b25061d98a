/* Finding the daemons: state directories lie below the configured root, below this user's, and where the units put
 * theirs; each has a control socket while its daemon runs. */
#include "tunneld/command/daemons.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/config/config.h"
#include "tunneld/process/control.h"
#include "tunneld/process/state.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ASK_TIMEOUT_MS = 5000, ENDING_TRIES = 50, ROOTS = 4 };

static const char *const roles[] = {"forwarder", "agent", "gateway", "local"};

bool td_daemons_is_role(const char *word)
{
	for (size_t i = 0; i < TNL_COUNT(roles); i++)
		if (strcmp(word, roles[i]) == 0)
			return true;
	return false;
}

struct asking {
	const struct td_daemons_query *q;
	const char *request;
	void (*fn)(void *ctx, char *reply);
	void *ctx;
	int answered;
};

static bool is_nobody(int err)
{
	return err == ENOENT || err == ECONNREFUSED || err == ENOTDIR;
}

/* A daemon that ends resets who has just connected to it, and is gone a moment later. */
static bool has_ended(const char *dir)
{
	for (int i = 0; i < ENDING_TRIES; i++) {
		char *reply = td_control_ask(dir, "status", ASK_TIMEOUT_MS);
		bool nobody = !reply && is_nobody(errno);
		if (nobody || reply || errno != ECONNRESET) {
			tnl_free(reply);
			return nobody;
		}
		nanosleep(&(struct timespec){0, 20 * 1000000}, NULL);
	}
	return false;
}

/* One state folder: nothing when nobody is behind it. */
static void ask_one(struct asking *a, const char *root, const char *name)
{
	size_t n = strlen(root) + strlen(name) + 2;
	char *dir = tnl_malloc(n);
	if (!dir)
		return;
	snprintf(dir, n, "%s/%s", root, name);
	char *reply = td_control_ask(dir, a->request, ASK_TIMEOUT_MS);
	int err = errno;
	if (!reply && !is_nobody(err) && !(err == ECONNRESET && has_ended(dir)))
		fprintf(stderr, "tunneld: %s does not answer: %s\n", dir, strerror(err));
	if (reply) {
		reply[strcspn(reply, "\n")] = '\0';
		a->answered++;
		a->fn(a->ctx, reply);
	}
	tnl_free(reply);
	tnl_free(dir);
}

static void ask_all(struct asking *a, const char *root)
{
	struct dirent **list;
	size_t k = a->q->role ? strlen(a->q->role) : 0;
	int n = scandir(root, &list, NULL, alphasort);
	if (n < 0 && errno != ENOENT && errno != ENOTDIR)
		fprintf(stderr, "tunneld: cannot list %s: %s\n", root, strerror(errno));
	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;
		if (name[0] != '.' && (!k || (strncmp(name, a->q->role, k) == 0 && strchr("-", name[k]))))
			ask_one(a, root, name);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

/* Only what runs with the configuration. */
static void ask_roles(struct asking *a, const char *root)
{
	char name[128], *full = realpath(a->q->file, NULL);
	for (size_t i = 0; full && i < TNL_COUNT(roles); i++) {
		if (a->q->role && strcmp(a->q->role, roles[i]) != 0)
			continue;
		td_state_name(roles[i], full, name, sizeof(name));
		ask_one(a, root, name);
	}
	free(full);
}

/* Where daemons keep their state: as configured, else where this user's go and where the units put theirs. */
static int find_roots(const char *file, char *roots[ROOTS])
{
	static const char *const system_roots[] = {"/var/lib/tunneld", "/var/lib/tunneld-agent",
						   "/var/lib/tunneld-gateway"};
	char *path = td_config_find(file);
	struct td_config *c = path ? td_config_load(path, 0, stderr) : NULL;
	bool bad = path && !c;
	tnl_free(path);
	if (bad)
		return -1;
	roots[0] = td_state_root(c ? c->state_dir : NULL);
	for (int i = 0; i < ROOTS - 1 && !(c && c->state_dir); i++)
		roots[i + 1] = tnl_strdup(system_roots[i]);
	td_config_free(c);
	return 0;
}

static void free_roots(char *roots[ROOTS])
{
	for (int i = 0; i < ROOTS; i++)
		tnl_free(roots[i]);
}

int td_daemons_ask(const struct td_daemons_query *q, const char *request, void (*fn)(void *ctx, char *reply), void *ctx)
{
	struct asking a = {.q = q, .request = request, .fn = fn, .ctx = ctx};
	char *roots[ROOTS] = {NULL};
	if (find_roots(q->file, roots) < 0)
		return -1;
	for (int i = 0; i < ROOTS; i++) {
		if (roots[i] && q->file)
			ask_roles(&a, roots[i]);
		else if (roots[i])
			ask_all(&a, roots[i]);
	}
	free_roots(roots);
	return a.answered;
}

int td_daemons_none(const struct td_daemons_query *q)
{
	char *roots[ROOTS] = {NULL};
	if (find_roots(q->file, roots) == 0)
		fprintf(stderr, "tunneld: nothing is running%s%s (looked in %s)\n", q->file ? " with " : "",
			q->file ? q->file : "",
			roots[0]   ? roots[0]
			: roots[1] ? roots[1]
				   : "no state directory");
	free_roots(roots);
	return TD_EXIT_NOT_RUNNING;
}
