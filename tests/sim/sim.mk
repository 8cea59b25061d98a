# The simulator: two sessions, a virtual clock, a seeded network.
SIM_OBJ := $(patsubst tests/sim/%.c,$(BUILD)/obj/tests/sim/%.o,$(sort $(wildcard tests/sim/*.c)))
SIM := $(BUILD)/tests/sim/sim

$(SIM): $(SIM_OBJ) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(SIM_OBJ) $(LIB) $(LIB_LIBS) -lm

# Each has a process of its own, and they run side by side under -j.
sim-one-%: $(SIM)
	$(SIM) --$(subst @, ,$*)

sim: sim-one-seeds@1-1000 sim-one-split@1-1000 sim-one-soak@1d
sim-short: sim-one-seeds@1-150 sim-one-split@1-150 sim-one-soak@6h

sim-long: $(SIM)
	$(SIM) --seeds 1001-13000
	$(SIM) --split 1001-21000
	$(SIM) --soak 7d

-include $(SIM_OBJ:.o=.d)
.PHONY: sim sim-short sim-long
