/* The state directory: 0700, a sub-folder per role and configuration, each
 * locked by the process that uses it. */
#ifndef TD_PROCESS_STATE_H
#define TD_PROCESS_STATE_H
#include <stddef.h>

struct td_state {
	char *dir; /* absolute, of this role and configuration */
	int lock_fd;
};
/* The root: `configured`, else $STATE_DIRECTORY, $XDG_STATE_HOME/tunneld, ~/.local/state/tunneld. Heap (tnl_free);
 * NULL: no home either. */
char *td_state_root(const char *configured);
/* "forwarder-1f2e3d4c5b6a": role and a digest of the configuration's path; only the role without a path. */
void td_state_name(const char *role, const char *config_path, char *out, size_t cap);
/* Makes and locks it. 0, or a negative TNL_E… and *why, with the cure. */
int td_state_open(struct td_state *s, const char *configured, const char *role, const char *config_path, char *why,
		  size_t cap);
void td_state_close(struct td_state *s);
char *td_state_file(const struct td_state *s, const char *name); /* DIR/NAME, heap (tnl_free) */

#endif
